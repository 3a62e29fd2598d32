"""The one place where weights meet a model: every key and shape is compared, and any difference is an error."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give `model` these weights, all of them, in place.

    Args:
        model: in our own names; on the meta device it saves the time that random weights would take.
        weights: by parameter name, any floating dtype; copied, as float32.

    Raises:
        CheckpointError: with the missing, unexpected and mismatched names; the model is then untouched.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    mismatched = [
        f"{name}: the checkpoint has {list(weights[name].shape)}, the model {list(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    findings = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
    if any(findings.values()):
        lines = [f"  {kind} ({len(names)}): {'; '.join(names)}" for kind, names in findings.items() if names]
        raise CheckpointError("the checkpoint does not fit the model:\n" + "\n".join(lines))
    # Copies are contiguous and share no memory, whatever views a converter made.
    layout = torch.contiguous_format
    copies = {name: tensor.detach().float().clone(memory_format=layout) for name, tensor in weights.items()}
    model.load_state_dict(copies, assign=True)
