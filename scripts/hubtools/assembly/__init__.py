"""From a checkpoint and a recipe to a Hub folder, and back to a foreign checkpoint."""
