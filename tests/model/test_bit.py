"""The baseline's network: its size, its strides, and that it answers as a ViT does."""

import pytest
import torch

from model.bit import Bottleneck, ResNet, decode_resnet
from model.manifest import Preprocessing
from model.standardised import StandardisedConvolution

SMALL = Preprocessing(patch_size=4, native_grid=(7, 7), max_patches=196, resize="aspect")
LARGE = Preprocessing(patch_size=16, native_grid=(14, 14), max_patches=196, resize="aspect")


def test_r50_has_the_published_size() -> None:
    """25.5 M parameters: those of ResNet-50, two values for each feature of a norm before each convolution."""
    with torch.device("meta"):
        model = ResNet(*decode_resnet("R50x1"), 1000, LARGE)
    assert sum(weight.numel() for weight in model.parameters()) == 25_549_352
    assert sum(isinstance(module, StandardisedConvolution) for module in model.modules()) == 1 + 16 * 3 + 4


@pytest.mark.parametrize(("spec", "side"), [(SMALL, 7), (LARGE, 7)])
def test_small_images_keep_their_resolution_at_the_root(spec: Preprocessing, side: int) -> None:
    layers, factor = decode_resnet("R20x0.125" if spec is SMALL else "R26x0.125")
    model = ResNet(layers, factor, 3, spec)
    pixels = torch.zeros(1, 3, *(spec.patch_size * cells for cells in spec.native_grid))
    assert model.stages(model.root(pixels)).shape[2:] == (side, side)


def test_it_answers_patches_and_grids() -> None:
    torch.manual_seed(0)
    model = ResNet(*decode_resnet("R20x0.125"), 3, SMALL)
    torch.nn.init.normal_(model.head.weight)
    patches = torch.randint(0, 256, (2, 15, 48), dtype=torch.uint8)
    logits, embedding = model(patches, torch.tensor([[3, 5]] * 2))
    assert (logits.shape, embedding.shape) == ((2, 3), (2, 128))
    alone, _ = model(patches[:1], torch.tensor([[3, 5]]))
    torch.testing.assert_close(alone, logits[:1], atol=1e-5, rtol=0)
    turned, _ = model(patches, torch.tensor([[5, 3]] * 2))
    assert not torch.allclose(turned, logits, atol=1e-4)


def test_what_is_added_bypasses_the_unit() -> None:
    unit = Bottleneck(32, 32, stride=1)
    unit.norms[2].weight.data.zero_()  # the last convolution sees zeros
    image = torch.randn(1, 32, 4, 4)
    torch.testing.assert_close(unit(image), image)


@pytest.mark.parametrize("name", ["", "R20", "R21x1", "R50x0", "R50x0.3", "R50x9", "Pico/4"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="choose one of R20, R26, R50, R101"):
        decode_resnet(name)
