"""Every layer against the protocol: forward == chunks == steps, causality, gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from protocol_cases import (
    D_MODEL,
    each_causal,
    each_layer,
    each_not_causal,
    is_mask,
    moved,
    random,
    random_state,
    run_in_chunks,
    run_in_steps,
)
from torch import Tensor
from torch.utils import _pytree as pytree

from ssm_core.layers.convolution_layer import ConvolutionLayer
from ssm_core.layers.protocol import SequenceLayer, detach_state


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("length", [0, 1, 2, 63, 64, 65, 1000])
@pytest.mark.parametrize("start", ["from-zero", "from-a-state"])
@each_causal
@torch.no_grad()
def test_forward_equals_chunks_equals_steps(
    make: Callable[[], SequenceLayer], start: str, length: int, dtype: torch.dtype, tol: float
) -> None:
    layer = moved(make(), dtype)
    x = random(2, length, D_MODEL, dtype=dtype)
    state = random_state(layer, 2, dtype) if start == "from-a-state" else layer.initial_state(2)

    y, final = layer(x, state=state, return_state=True)

    assert y.shape == x.shape
    assert y.dtype == dtype
    for run in (run_in_chunks, run_in_steps):
        other_y, other_final = run(layer, x, state)
        torch.testing.assert_close(other_y, y, rtol=tol, atol=tol)
        torch.testing.assert_close(other_final, final, rtol=tol, atol=tol)
    if start == "from-zero":
        torch.testing.assert_close(layer(x), y, rtol=tol, atol=tol)


@each_causal
def test_detached_state_cuts_the_graph(make: Callable[[], SequenceLayer]) -> None:
    """Truncated backpropagation through time: each piece's gradient ends where it began."""
    layer = moved(make(), torch.float64)
    x = random(2, 6, D_MODEL).requires_grad_()
    _, state = layer(x[:, :3], return_state=True)
    cut = detach_state(state)
    assert pytree.tree_structure(cut) == pytree.tree_structure(state)
    for start, reaches in ((state, True), (cut, False)):
        y = layer(x[:, 3:], state=start)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        assert bool(gradient[:, :3].any()) is reaches
        assert gradient[:, 3:].any()


@each_causal
@torch.no_grad()
def test_state_matters(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    x = random(2, 3, D_MODEL)
    y = layer(x)
    continued = layer(x, state=random_state(layer, 2, torch.float64))
    assert (continued - y).abs().max() > 1e-5


@each_causal
@torch.no_grad()
def test_past_does_not_see_the_future(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float32)
    # an FFT spreads its rounding errors over all steps
    tol = 2e-6 if isinstance(layer, ConvolutionLayer) else 0.0
    x = random(2, 40, D_MODEL, dtype=torch.float32)
    y = layer(x)
    for t in (0, 1, 17, 39):
        changed = x.clone()
        changed[:, t] += 1.0
        other = layer(changed)
        torch.testing.assert_close(other[:, :t], y[:, :t], rtol=0, atol=tol)
        assert not torch.equal(other[:, t], y[:, t])


@each_not_causal
@torch.no_grad()
def test_layer_that_is_not_causal_sees_the_future(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    x = random(2, 9, D_MODEL)
    changed = x.clone()
    changed[:, 8] += 1.0
    assert (layer(changed)[:, 0] - layer(x)[:, 0]).abs().max() > 1e-6


@each_layer
@pytest.mark.parametrize("length", [0, 1])
def test_shortest_sequences(make: Callable[[], SequenceLayer], length: int) -> None:
    layer = moved(make(), torch.float32)
    x = random(3, length, D_MODEL, dtype=torch.float32).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.shape == (3, length, D_MODEL)
    assert x.grad is not None
    assert x.grad.shape == x.shape


@each_layer
def test_strides_do_not_matter(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    x = random(2, 2 * 7, 2 * D_MODEL)[:, ::2, ::2]
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-12, atol=1e-12)


@each_layer
def test_gradients_through_inputs_parameters_and_states(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    x = random(2, 4, D_MODEL)
    state = random_state(layer, 2, torch.float64) if layer.causal else None
    leaves, structure = pytree.tree_flatten(state)
    leaves = [] if state is None else leaves

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, rest = tensors[0], tensors[1:]
        parameters = dict(zip(names, rest[len(leaves) :], strict=True))
        if not layer.causal:
            return (torch.func.functional_call(layer, parameters, (x,)),)
        state = pytree.tree_unflatten(list(rest[: len(leaves)]), structure)
        y, final = torch.func.functional_call(layer, parameters, (x, state), {"return_state": True})
        return (y, *(t for t in pytree.tree_leaves(final) if not is_mask(t)))

    inputs = [x, *leaves, *(p for _, p in layer.named_parameters())]
    inputs = [t.detach().clone().requires_grad_(not is_mask(t)) for t in inputs]
    assert torch.autograd.gradcheck(run, inputs, atol=1e-6, rtol=1e-5)


@each_causal
def test_given_state_is_left_alone(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float32)
    state = random_state(layer, 2, torch.float32)
    before = pytree.tree_map(lambda t: t.detach().clone(), state)
    layer(random(2, 5, D_MODEL, dtype=torch.float32), state=state, return_state=True)
    layer.step(random(2, D_MODEL, dtype=torch.float32), state)
    torch.testing.assert_close(state, before, rtol=0, atol=0)


@each_causal
def test_state_is_a_pytree_of_tensors_with_the_batch_first(
    make: Callable[[], SequenceLayer],
) -> None:
    layer = make()
    state = layer.initial_state(5)
    leaves = pytree.tree_leaves(state)
    assert leaves
    assert all(isinstance(leaf, Tensor) and leaf.shape[0] == 5 for leaf in leaves)
    returned = layer(torch.zeros(5, 0, D_MODEL), return_state=True)[1]
    assert pytree.tree_structure(returned) == pytree.tree_structure(state)
    torch.testing.assert_close(returned, state, rtol=0, atol=0)


@each_causal
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_under_autocast_and_in_bfloat16(
    make: Callable[[], SequenceLayer], dtype: torch.dtype
) -> None:
    layer = moved(make(), dtype)
    x = random(2, 9, D_MODEL, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        y = layer(x)
        steps, _ = run_in_steps(layer, x, layer.initial_state(2))
    expected = layer.double()(x.double())
    torch.testing.assert_close(steps.double(), expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(y.double(), expected, rtol=0.1, atol=0.1)
