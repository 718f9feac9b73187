"""What the scripts share: checkpoints in, Hub folders out, and the checks between them."""
