"""A standardised convolution answers as one whose kernel was standardised beforehand."""

import torch
from torch import nn

from model.standardised import StandardisedConvolution, fold_kernels, standardise


def test_each_output_has_a_kernel_of_mean_0_and_variance_1() -> None:
    kernel = standardise(torch.randn(4, 3, 5, 5) * 7 + 2)
    torch.testing.assert_close(kernel.mean((1, 2, 3)), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(kernel.var((1, 2, 3), correction=0), torch.ones(4))


def test_folded_it_answers_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(StandardisedConvolution(3, 4, 3, stride=2, padding=1), nn.ReLU())
    image = torch.randn(2, 3, 8, 8)
    expected = model(image)
    assert not torch.allclose(expected, nn.Conv2d.forward(model[0], image).relu())  # type: ignore[arg-type]
    fold_kernels(model)
    assert type(model[0]) is nn.Conv2d
    torch.testing.assert_close(model(image), expected, atol=1e-5, rtol=0)
