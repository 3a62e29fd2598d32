"""What moves the weights, and their running average."""

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from model.training.recipe import Recipe
from model.vit import VisionTransformer


def make_optimizer(model: VisionTransformer, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of the trainable weights, with weight decay on matrices alone.

    AdamW is for training from scratch; SGD with momentum, and no decay, is how the paper fine-tunes (appendix B.1.1).
    """
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = [weight for name, weight in trainable.items() if weight.ndim == 2 and "positions" not in name]
    chosen = {id(weight) for weight in matrices}
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": [each for each in trainable.values() if id(each) not in chosen], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def averaged(model: VisionTransformer, decay: float) -> AveragedModel | None:
    """A copy whose weights follow as an exponential moving average; None for a decay of 0.

    The first steps follow faster, `(1 + n) / (10 + n)` instead of the decay: random weights are forgotten sooner.
    """
    if decay == 0:
        return None

    def follow(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        count = float(updates)
        return average.lerp(current, 1 - min(decay, (1 + count) / (10 + count)))

    return AveragedModel(model, avg_fn=follow)
