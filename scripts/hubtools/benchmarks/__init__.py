"""Benchmark cases as data, and how their time and memory are measured."""
