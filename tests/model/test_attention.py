"""Attention and pooling read valid tokens alone, in every form."""

from dataclasses import replace

import pytest
import torch

from model.architecture import ViTConfig
from model.attention import Attend, Attention, DifferentialAttention, masked_attention, matmul_attention
from model.pooling import AttentionPooling, average

CONFIG = ViTConfig(width=32, depth=1, heads=4, mlp_dim=64, qk_norm=True, inner_norm=True)
LENGTHS = torch.tensor([5, 1, 7])


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """The same valid tokens `[3, 7, 32]` with two paddings."""
    tokens = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    for row, length in zip(other, LENGTHS, strict=True):
        row[length:] = 1e4
    return tokens, other


@pytest.mark.parametrize("kind", [Attention, DifferentialAttention])
@pytest.mark.parametrize("attend", [masked_attention, matmul_attention])
def test_padding_changes_nothing(kind: type[Attention], attend: Attend) -> None:
    torch.manual_seed(0)
    attention = kind(CONFIG)
    attention.attend = attend
    first, second = (attention(tokens, LENGTHS) for tokens in padded())
    for left, right, length in zip(first, second, LENGTHS, strict=True):
        torch.testing.assert_close(left[:length], right[:length], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [Attention, DifferentialAttention])
def test_both_forms_give_the_same(kind: type[Attention]) -> None:
    torch.manual_seed(0)
    attention = kind(replace(CONFIG, norm="rms"))
    fused = attention(padded()[0], LENGTHS)
    attention.attend = matmul_attention
    torch.testing.assert_close(attention(padded()[0], LENGTHS), fused, atol=1e-5, rtol=0)


def test_differential_attention_is_a_difference_of_two() -> None:
    """Section 2.1 of the paper, written out for one image of one head."""
    torch.manual_seed(0)
    attention = DifferentialAttention(ViTConfig(width=8, depth=1, heads=1, mlp_dim=8))
    torch.nn.init.constant_(attention.balance, 0.3)
    tokens = torch.randn(1, 5, 8)
    query, key, value = (part[0] for part in attention.qkv(tokens))
    maps = [(query[:, half] @ key[:, half].T / 2).softmax(-1) for half in (slice(0, 4), slice(4, 8))]
    mixed = (maps[0] - 0.3 * maps[1]) @ value
    expected = attention.project(mixed / (mixed.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    torch.testing.assert_close(attention(tokens, torch.tensor([5]))[0], expected, atol=1e-5, rtol=0)


def test_the_average_is_of_valid_tokens() -> None:
    tokens, other = padded()
    assert torch.equal(average(tokens, LENGTHS), average(other, LENGTHS))
    torch.testing.assert_close(average(other, LENGTHS)[0], tokens[0, :5].mean(0))


def test_attention_pooling_reads_valid_tokens() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(CONFIG)
    torch.nn.init.normal_(pooling.query)
    first, second = (pooling(tokens, LENGTHS) for tokens in padded())
    assert first.shape == (3, 32)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
