"""Where checkpoints come from: files, folders, the Hugging Face hub, torchvision."""
