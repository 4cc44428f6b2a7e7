"""Every layer against the protocol: forward == chunks == steps, causality, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ssm_core.block import Block
from ssm_core.layers.attention import Attention, AttentionConfig
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.layers.protocol import CausalityError, SequenceLayer, StateError
from ssm_core.layers.rnn import RNN, RNNConfig
from ssm_core.tower import Tower, TowerConfig
from ssm_kernels.errors import ShapeError, SsmError

D_MODEL = 4
SMALL = MambaConfig(d_state=3, d_conv=3, dt_rank=2, bias=True)


def mamba() -> Mamba:
    return Mamba(D_MODEL, SMALL)


def causal_attention() -> Attention:
    return Attention(D_MODEL, AttentionConfig(n_heads=2))


CAUSAL: dict[str, Callable[[], SequenceLayer]] = {
    "mamba": mamba,
    "mamba-width-1": lambda: Mamba(D_MODEL, MambaConfig(d_state=1, d_conv=1, conv_bias=False)),
    "rnn": lambda: RNN(D_MODEL),
    "rnn-hidden": lambda: RNN(D_MODEL, RNNConfig(hidden=3, nonlinearity="relu")),
    "attention": causal_attention,
    "block": lambda: Block(D_MODEL, mamba(), mlp_hidden=5, norm="layer"),
    "tower-mamba": lambda: Tower(mamba, TowerConfig(D_MODEL, n_layers=2, mlp_hidden=5)),
    "tower-attention": lambda: Tower(causal_attention, TowerConfig(D_MODEL, n_layers=2)),
}
NOT_CAUSAL: dict[str, Callable[[], SequenceLayer]] = {
    "bimamba": lambda: BiMamba(D_MODEL, BiMambaConfig(d_state=3, d_conv=3, dt_rank=2)),
    "attention": lambda: Attention(D_MODEL, AttentionConfig(n_heads=2, causal=False)),
    "tower": lambda: Tower(NOT_CAUSAL["bimamba"], TowerConfig(D_MODEL, n_layers=2)),
}
each_causal = pytest.mark.parametrize("make", CAUSAL.values(), ids=CAUSAL.keys())
each_not_causal = pytest.mark.parametrize("make", NOT_CAUSAL.values(), ids=NOT_CAUSAL.keys())
each_layer = pytest.mark.parametrize(
    "make",
    [*CAUSAL.values(), *NOT_CAUSAL.values()],
    ids=[*CAUSAL, *(f"{name}-not-causal" for name in NOT_CAUSAL)],
)


def moved(layer: SequenceLayer, dtype: torch.dtype, seed: int = 0) -> SequenceLayer:
    """Move every parameter off its initial value, so that each one matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.add_((noise * scale).to(parameter.dtype))
    return layer.to(dtype)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def random_state(layer: SequenceLayer, batch: int, dtype: torch.dtype) -> Any:
    """A state that a real sequence left behind."""
    return layer(random(batch, 3, D_MODEL, dtype=dtype, seed=2), return_state=True)[1]


def run_in_chunks(layer: SequenceLayer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    length = x.shape[1]
    cuts = sorted({0, 1, length // 3, length // 2, length} & set(range(length + 1)))
    pieces = []
    for start, stop in [(0, 0), *pairwise(cuts)]:
        y, state = layer(x[:, start:stop], state=state, return_state=True)
        pieces.append(y)
    return torch.cat(pieces, dim=1), state


def run_in_steps(layer: SequenceLayer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    pieces = []
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
        pieces.append(y_t)
    return (torch.stack(pieces, dim=1) if pieces else x), state


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("length", [0, 1, 2, 63, 64, 65])
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
@torch.no_grad()
def test_state_matters(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    x = random(2, 3, D_MODEL)
    y = layer(x)
    continued = layer(x, state=random_state(layer, 2, torch.float64))
    assert (continued - y).abs().max() > 1e-3


@each_causal
@torch.no_grad()
def test_past_does_not_see_the_future(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float32)
    x = random(2, 40, D_MODEL, dtype=torch.float32)
    y = layer(x)
    for t in (0, 1, 17, 39):
        changed = x.clone()
        changed[:, t] += 1.0
        other = layer(changed)
        assert torch.equal(other[:, :t], y[:, :t])
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
        y, final = torch.func.functional_call(layer, parameters, (x, state, True))
        return (y, *pytree.tree_leaves(final))

    inputs = [x, *leaves, *(p for _, p in layer.named_parameters())]
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
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


@each_not_causal
def test_layer_that_is_not_causal_has_no_state(make: Callable[[], SequenceLayer]) -> None:
    layer = make()
    x = torch.zeros(1, 3, D_MODEL)
    with pytest.raises(CausalityError, match="step needs a causal layer, but this one reads later"):
        layer.step(x[:, 0], None)
    with pytest.raises(CausalityError, match=f"{type(layer).__name__}: initial_state needs"):
        layer.initial_state(1)
    with pytest.raises(CausalityError, match="a state needs a causal layer"):
        layer(x, return_state=True)
    with pytest.raises(SsmError, match="a state needs a causal layer"):
        layer(x, state=(torch.zeros(1),))


@each_layer
@pytest.mark.parametrize("shape", [(2, 3, D_MODEL + 1), (3, D_MODEL), (1, 2, 3, D_MODEL)])
def test_wrong_input_shape(make: Callable[[], SequenceLayer], shape: tuple[int, ...]) -> None:
    layer = make()
    with pytest.raises(ShapeError) as caught:
        layer(torch.zeros(shape))
    assert str(caught.value) == (
        f"{type(layer).__name__}: x has shape {shape}, expected (b, l, d) = (b, l, {D_MODEL})"
    )


@each_causal
@pytest.mark.parametrize("shape", [(2, D_MODEL + 1), (2, 1, D_MODEL)])
def test_wrong_step_shape(make: Callable[[], SequenceLayer], shape: tuple[int, ...]) -> None:
    layer = make()
    with pytest.raises(ShapeError) as caught:
        layer.step(torch.zeros(shape), layer.initial_state(2))
    assert str(caught.value) == (
        f"{type(layer).__name__}.step: x_t has shape {shape}, expected (b, d) = (b, {D_MODEL}); "
        "pass a whole sequence to the layer itself"
    )


@each_causal
def test_state_of_another_batch_or_layer(make: Callable[[], SequenceLayer]) -> None:
    layer = make()
    x = torch.zeros(2, 1, D_MODEL)
    with pytest.raises(StateError, match=r"for a batch of 2, expected 2 as its first axis"):
        layer(x, state=layer.initial_state(3))
    with pytest.raises(StateError, match=r"is a dict, expected \w+; start from initial_state"):
        layer(x, state={})


def test_base_class_names_what_is_missing() -> None:
    class Unfinished(SequenceLayer):
        d_model = D_MODEL

    layer = Unfinished()
    with pytest.raises(NotImplementedError, match="Unfinished does not implement forward"):
        layer(torch.zeros(1, 1, D_MODEL))
    with pytest.raises(NotImplementedError, match="Unfinished does not implement initial_state"):
        layer.initial_state(1)
