"""What a trained model has learned, as figures 6 and 7 of the paper show it."""
