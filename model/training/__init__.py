"""Training, step by step: recipe, model to start from, batches, steps, state, and the loop that ties them together."""
