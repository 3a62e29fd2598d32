"""The model has the paper's sizes, and an image's answer is its own."""

import pytest
import torch

from model.attention import matmul_attention
from model.vit import PatchEmbedding, VisionTransformer, decode_variant


def parameters(variant: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VisionTransformer(*decode_variant(variant)).parameters())


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("Ti/16", 5_717_416),
        ("S/16", 22_050_664),
        ("B/16", 86_567_656),
        ("B/32", 88_224_232),
        ("L/16", 304_326_632),
        ("H/14", 632_045_800),
    ],
)
def test_parameter_counts_are_the_published_ones(variant: str, count: int) -> None:
    assert parameters(variant) == count


def test_a_hybrid_has_the_published_size() -> None:
    assert parameters("R50+B/16") == 98_659_112


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(*decode_variant("Femto/4", classes=10)).eval()


def random_patches(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 48), dtype=torch.uint8)


@torch.no_grad()
def test_batch_mates_and_padding_change_nothing(model: VisionTransformer) -> None:
    grids = [(7, 7), (1, 1), (10, 3), (12, 12)]
    images = [random_patches(rows * columns) for rows, columns in grids]
    batch = torch.randint(0, 256, (4, 150, 48), dtype=torch.uint8)  # padding holds anything
    for row, image in zip(batch, images, strict=True):
        row[: len(image)] = image
    together, embedding = model(batch, torch.tensor(grids))
    for index, (image, grid) in enumerate(zip(images, grids, strict=True)):
        alone, alone_embedding = model(image[None], torch.tensor([grid]))
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(embedding[index], alone_embedding[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_written_out_gives_the_same_answers() -> None:
    model = VisionTransformer(*decode_variant("Femto/4", classes=10)).eval()
    patches, grid = torch.stack([random_patches(60)] * 3), torch.tensor([(7, 7), (1, 1), (6, 10)])
    fused, _ = model(patches, grid)
    model.attend_with(matmul_attention)
    written_out, _ = model(patches, grid)
    torch.testing.assert_close(written_out, fused, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_grid_matters(model: VisionTransformer) -> None:
    patches = random_patches(30)[None]
    wide, _ = model(patches, torch.tensor([(3, 10)]))
    tall, _ = model(patches, torch.tensor([(10, 3)]))
    assert (wide - tall).abs().max() > 1e-4


@torch.no_grad()
def test_patch_embedding_normalises_pixels(model: VisionTransformer) -> None:
    patches = random_patches(5)[None]
    pixels = (patches.double() / 255 - 0.5) / 0.5
    assert isinstance(model.embedding, PatchEmbedding)
    expected = pixels @ model.embedding.project.weight.double().T + model.embedding.project.bias.double()
    torch.testing.assert_close(model.embedding(patches, torch.tensor([(1, 5)])).double(), expected, atol=1e-5, rtol=0)
