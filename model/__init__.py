"""Vision Transformers: definition, preprocessing, checkpoints, training."""
