"""The parts of `make demo`, each runnable alone through scripts/demo.py."""
