"""The linear layer of all models: torch's in training, the quick one in inference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssm_core import linear
from ssm_core.linear import Linear


@pytest.fixture
def calls(monkeypatch):
    """The number of products that `fused_linear` has computed."""
    done = []

    def counted(x, weight, bias):
        y = fused(x, weight, bias)
        done.append(y is not None)
        return y

    fused = linear.fused_linear
    monkeypatch.setattr(linear, "fused_linear", counted)
    return done


@pytest.mark.parametrize("rows", [1, 40])
def test_it_is_torchs_layer(calls, rows):
    torch.manual_seed(0)
    ours, theirs = Linear(320, 400), nn.Linear(320, 400)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(rows, 320)
    expected = theirs(x)
    assert torch.equal(ours(x), expected)
    assert calls == [False]
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected)
    assert calls == [False, True]


def test_gradients_compiler_and_other_types():
    torch.manual_seed(0)
    layer = Linear(200, 210)
    x = torch.randn(3, 200, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
        assert layer.bfloat16()(x.bfloat16()).dtype is torch.bfloat16
