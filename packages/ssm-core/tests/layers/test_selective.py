"""Inference by one kernel gives what the single operators give, whatever happens to the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssm_core.layers import selective
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba
from ssm_core.layers.protocol import SequenceLayer

LAYERS: dict[str, Callable[[], SequenceLayer]] = {
    "mamba": lambda: Mamba(10),
    "bimamba": lambda: BiMamba(10),
    "bimamba, sum": lambda: BiMamba(10, BiMambaConfig(divide_out=False, conv_bias=False)),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def inference(layer: SequenceLayer, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = layer(x)
    assert isinstance(y, Tensor)
    return y


def assert_inference_agrees(layer: SequenceLayer, x: Tensor) -> None:
    y = layer(x)
    assert isinstance(y, Tensor)
    assert y.requires_grad
    torch.testing.assert_close(inference(layer, x), y.detach(), rtol=1e-10, atol=1e-12)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the kernel ran, call by call."""
    calls: list[bool] = []
    kernel = selective.fused_mamba_directions

    def recorded(*arguments: object) -> Tensor | None:
        y = kernel(*arguments)  # type: ignore[arg-type]
        calls.append(y is not None)
        return y

    monkeypatch.setattr(selective, "fused_mamba_directions", recorded)
    return calls


@every_layer
def test_inference_gives_the_values_of_training(
    make: Callable[[], SequenceLayer], fused: list[bool]
) -> None:
    layer = make().double()
    for b, l in ((2, 31), (1, 1), (1, 0), (0, 4)):
        assert_inference_agrees(layer, torch.randn(b, l, 10, dtype=torch.float64))
    assert fused == [True] * 4


@every_layer
def test_every_change_of_a_parameter_is_seen(make: Callable[[], SequenceLayer]) -> None:
    torch.manual_seed(0)
    layer, x = make(), torch.randn(2, 9, 10)
    before = inference(layer, x)
    layer.double()
    x = x.double()
    torch.testing.assert_close(inference(layer, x), before.double(), rtol=1e-4, atol=1e-5)
    assert_inference_agrees(layer, x)
    layer.load_state_dict({k: v + 0.1 for k, v in layer.state_dict().items()})
    assert_inference_agrees(layer, x)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    y = layer(x)
    assert isinstance(y, Tensor)
    y.square().mean().backward()
    optimizer.step()
    assert_inference_agrees(layer, x)
    for parameter in layer.parameters():
        parameter.data.mul_(0.9)
    assert_inference_agrees(layer, x)
    state = {k: v.mT.contiguous().mT if v.dim() == 2 else v for k, v in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)
    assert_inference_agrees(layer.requires_grad_(), x)


@every_layer
def test_hooks_and_other_projections_are_called(
    make: Callable[[], SequenceLayer], fused: list[bool]
) -> None:
    layer, x = make(), torch.randn(2, 9, 10)
    before = inference(layer, x)
    assert fused == [True]
    handle = layer.x_proj.register_forward_hook(lambda module, inputs, y: y * 2)
    assert not torch.allclose(inference(layer, x), before)
    handle.remove()
    torch.testing.assert_close(inference(layer, x), before)
    layer.x_proj.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    assert not torch.allclose(inference(layer, x), before)

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layer = make()
    other = Doubled(20, layer.x_proj.out_features, bias=False)
    other.load_state_dict(layer.x_proj.state_dict())
    before = inference(layer, x)
    layer.x_proj = other
    assert not torch.allclose(inference(layer, x), before)


@every_layer
def test_packed_sequences_are_run_by_the_operators(
    make: Callable[[], SequenceLayer], fused: list[bool]
) -> None:
    layer, x = make().double(), torch.randn(1, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        y = layer(x, cu_seqlens=torch.tensor([0, 5, 12]))
    assert fused == []
    parts = [inference(layer, x[:, :5]), inference(layer, x[:, 5:])]
    torch.testing.assert_close(y, torch.cat(parts, dim=1))
    assert fused == [True, True]


def test_states_are_kept_where_they_are_asked_for(fused: list[bool]) -> None:
    layer, x = Mamba(10).double(), torch.randn(2, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        first, state = layer(x[:, :5], return_state=True)
        second = layer(x[:, 5:], state=state)
    assert fused == []
    torch.testing.assert_close(torch.cat([first, second], dim=1), inference(layer, x))
    assert fused == [True]
