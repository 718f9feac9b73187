"""The facts of each model, one file per model, each with its PACKAGE: a file that is put here is known to every
tool."""
