"""Models of torchvision give the same answers after conversion, at other sizes by its own interpolation."""

import pytest
import torch

from benchmarks import coverage, references
from model.checkpoints import from_torchvision
from model.checkpoints.loading import CheckpointError


@pytest.fixture(scope="module")
def reference() -> references.Reference:
    return references.from_torchvision("vit_b_32", 1)


def test_answers_are_the_same_at_three_square_grids(reference: references.Reference) -> None:
    result = coverage.run("vit_b_32", lambda: reference, export=False)
    assert result.torch is not None
    assert result.torch < 1e-5
    assert result.grids == "7x7 4x4 10x10"


def test_old_files_name_the_mlp_in_another_way(reference: references.Reference) -> None:
    old = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): tensor
        for name, tensor in reference.weights.items()
    }
    ours = from_torchvision.convert(old, reference.config).state_dict()
    for name, tensor in from_torchvision.convert(reference.weights, reference.config).state_dict().items():
        assert torch.equal(ours[name], tensor)


def test_unknown_architectures_and_stems_are_refused(reference: references.Reference) -> None:
    with pytest.raises(CheckpointError, match="'swin_t' is not supported: vit_b_16, vit_b_32"):
        from_torchvision.convert(reference.weights, {"architecture": "swin_t"})
    with pytest.raises(CheckpointError, match="convolutional stem of torchvision"):
        from_torchvision.convert(
            dict(reference.weights) | {"conv_proj.conv_bn_relu_0.0.weight": torch.zeros(1)}, reference.config
        )
    with pytest.raises(CheckpointError, match=r"the checkpoint has no conv_proj\.weight"):
        from_torchvision.convert({}, reference.config)
