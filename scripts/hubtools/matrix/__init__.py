"""The suite that runs inside any transformers release: the releases, their environments, and the results."""
