"""Squeeze-and-excitation against its equation."""

from __future__ import annotations

import torch

from ssm_vision.models.squeeze_excitation import SqueezeExcitation


def test_equals_the_equation() -> None:
    module = SqueezeExcitation(6, 4).double()
    assert module.fc1.weight.shape == (2, 6)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    patches = x[:, 1:]
    y = module(x, patches)
    for b in range(3):
        squeezed = sum(patches[b, t] for t in range(4)) / 4
        hidden = (module.fc1.weight @ squeezed + module.fc1.bias).clamp(min=0)
        gate = 2 / (1 + torch.exp(-(module.fc2.weight @ hidden + module.fc2.bias)))
        for t in range(5):
            torch.testing.assert_close(y[b, t], x[b, t] * gate)


def test_more_reduction_than_channels_leaves_one() -> None:
    assert SqueezeExcitation(6, 100).fc1.weight.shape == (1, 6)


def test_a_class_token_takes_no_part_in_the_mean() -> None:
    module = SqueezeExcitation(6, 2)
    x = torch.randn(2, 5, 6)
    other = x.clone()
    other[:, 0] += 1
    torch.testing.assert_close(module(x, x[:, 1:])[:, 1:], module(other, other[:, 1:])[:, 1:])
