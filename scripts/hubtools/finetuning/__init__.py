"""Fine-tuning an assembled Hub folder with transformers' Trainer: data in, a Hub folder out."""
