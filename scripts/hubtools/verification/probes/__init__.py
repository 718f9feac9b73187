"""What runs in child processes.

`folder` and what it imports must work where this repository cannot be seen, under any supported transformers release,
so they import torch, transformers and each other only. `checkpoint` and `reference` use the repository.
"""
