"""What S4 keeps for single steps, extreme values, and graphs of compilers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssm_core.layers import dplr_scan
from ssm_core.layers.s4 import S4, S4Config


def small(l_max: int = 12) -> S4:
    return S4(3, S4Config(4, l_max=l_max)).double()


def optimizer_step(layer: S4) -> S4:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(2, 5, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    return layer


def load(layer: S4) -> S4:
    torch.manual_seed(5)
    layer.load_state_dict(small(16).state_dict())
    return layer


def load_true_C(layer: S4) -> S4:
    layer.load_state_dict(small(16).state_dict() | {"kernel.l_kernel": torch.tensor(0)})
    return layer


def lengthen(layer: S4) -> S4:
    layer.kernel.lengthen(40)
    return layer


def replace(layer: S4) -> S4:
    layer.kernel.B = torch.nn.Parameter(layer.kernel.B.detach() * 2)
    return layer


def single_then_double(layer: S4) -> S4:
    layer.float()
    with torch.no_grad():
        layer.step(torch.zeros(1, 3), layer.initial_state(1))
    return layer.double()


@pytest.mark.parametrize(
    "change",
    [optimizer_step, load, load_true_C, lengthen, replace, single_then_double, copy.deepcopy],
)
def test_single_steps_notice_that_a_parameter_changed(change: Callable[[S4], S4]) -> None:
    layer = small()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.step(x[:, 0], layer.initial_state(2))
    layer = change(layer)
    with torch.no_grad():
        state = layer.initial_state(2)
        steps = []
        for x_t in x.unbind(1):
            y_t, state = layer.step(x_t, state)
            steps.append(y_t)
        torch.testing.assert_close(torch.stack(steps, 1), layer(x))


def test_single_steps_do_not_solve_again() -> None:
    layer = small()
    with torch.no_grad():
        state = layer.initial_state(1)
        layer.step(torch.zeros(1, 3, dtype=torch.float64), state)
        kept = layer.kernel._kept
        layer.step(torch.zeros(1, 3, dtype=torch.float64), state)
    assert kept is not None
    assert layer.kernel._kept is kept
    assert copy.deepcopy(layer).kernel._kept is None


def test_single_steps_of_a_layer_made_for_inference() -> None:
    with torch.inference_mode():
        layer = small()
        x = torch.randn(2, 3, dtype=torch.float64)
        y, _ = layer.step(x, layer.initial_state(2))
        torch.testing.assert_close(y, layer(x.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("A_real", [-30.0, 0.0, 12.0, 30.0])
@pytest.mark.parametrize("inv_dt", [-30.0, 0.0, 30.0])
def test_extreme_models_stay_finite(inv_dt: float, A_real: float, with_state: bool) -> None:
    layer = S4(2, S4Config(4, l_max=64))
    with torch.no_grad():
        layer.kernel.inv_dt.fill_(inv_dt)
        layer.kernel.A_real.fill_(A_real)
    inputs = {
        "zeros": torch.zeros(1, 100, 2),
        "constant": torch.full((1, 100, 2), 100.0),
        "large": torch.randn(1, 100, 2) * 1e4,
        "tiny": torch.full((1, 100, 2), 1e-38),
    }
    for kind, values in inputs.items():
        x = values.requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x, return_state=True)[0] if with_state else layer(x)
        y.float().mean().backward()
        assert y.isfinite().all(), kind
        for name, parameter in [("x", x), *layer.named_parameters()]:
            assert parameter.grad is not None, (kind, name)
            assert parameter.grad.isfinite().all(), (kind, name)


def test_sixteen_bit_parameters_compute_in_float32() -> None:
    layer = small().bfloat16()
    assert layer.kernel(5).dtype is torch.float32
    y, state = layer(torch.randn(2, 5, 3, dtype=torch.bfloat16), return_state=True)
    assert y.dtype is torch.bfloat16
    assert state.ssm.dtype is layer.initial_state(2).ssm.dtype is torch.complex64


def test_one_graph_with_states_for_every_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dplr_scan, "LONGEST_CHUNK", 8)  # tracing takes time by the group
    monkeypatch.setattr(dplr_scan, "_GROUP", 4)
    monkeypatch.setattr(dplr_scan, "_TRACED_CHUNKS", 8)
    layer = S4(2, S4Config(4, l_max=32))
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    def run(x: Tensor, state: object) -> object:
        return layer(x, state=state, return_state=True)

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    for b, l in ((2, 20), (3, 55), (4, 2)):
        x, state = torch.randn(b, l, 2), layer.initial_state(b)
        torch._dynamo.mark_dynamic(x, (0, 1))
        torch._dynamo.mark_dynamic(state.ssm, 0)
        torch.testing.assert_close(compiled(x, state), run(x, state))
    assert len(graphs) == 1
    message = "in a compiled graph with states, expected at most so many; run a longer"
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match=message):
        compiled(torch.randn(3, 56, 2), layer.initial_state(3))
    torch._dynamo.reset()


def test_a_graph_for_more_steps_than_the_kernel_has() -> None:
    layer = small(8)
    compiled = torch.compile(layer.kernel, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(8), layer.kernel(8))
    message = "S4: 9 steps in a compiled graph of a kernel for 8, expected at most so many; call"
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match=message):
        compiled(9)
    layer.kernel.lengthen(9)
    torch.testing.assert_close(compiled(9), layer.kernel(9))
    torch._dynamo.reset()


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="PyTorch 2.6")
@pytest.mark.parametrize("longest", [None, 12, 40])
@torch.no_grad()
def test_an_exported_graph_for_any_number_of_steps(longest: int | None) -> None:
    """Bounded by the length it is the kernel itself; otherwise it makes kernels as it needs."""
    layer = small(12)
    steps = {1: torch.export.Dim("l", max=longest)}
    program = torch.export.export(layer, (torch.zeros(2, 7, 3).double(),), dynamic_shapes=(steps,))
    for l in (2, 11, 12, 13, 40):
        if longest is None or l <= longest:
            x = torch.randn(2, l, 3, dtype=torch.float64)
            torch.testing.assert_close(program.module()(x), copy.deepcopy(layer)(x))
    assert layer.kernel.length == 12
