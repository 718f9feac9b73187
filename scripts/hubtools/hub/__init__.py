"""Uploads and downloads: huggingface_hub's client, what is retried, and how remote files are compared with local
ones."""
