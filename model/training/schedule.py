"""The learning rate of each step."""

import math

from model.training.recipe import Recipe


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine to 1 % of the peak."""
    warmup = max(1, round(recipe.warmup_share * steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
