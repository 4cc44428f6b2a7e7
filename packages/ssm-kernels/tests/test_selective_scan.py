"""Every backend against the float64 reference: values and gradients, whatever the arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    BACKENDS,
    DTYPES,
    TOLERANCE,
    Leaf,
    assert_all_close,
    assert_close,
    assert_same_special_values,
    examples,
    layouts,
    leaf,
    parameter,
    run,
)
from torch import Tensor

from ssm_kernels import BackendError, selective_scan, selective_scan_reference

LENGTHS = [0, 1, 2, 3, 7, 16, 31, 32, 33, 65]


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int
    d: int
    n: int
    groups: tuple[int, int]  # of B and C: 0 no step axis, 1 (b, l, n), more (b, l, g, n)
    is_complex: bool
    skip: bool
    gate: bool
    bias: bool
    softplus: bool
    carry: bool
    reverse: bool
    layouts: tuple[str, ...]
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        b, l, d, n = self.b, self.l, self.d, self.n
        real = torch.float64 if dtype is torch.float64 else torch.float32
        state = real.to_complex() if self.is_complex else real
        activation = partial(leaf, shape=(b, l, d), dtype=dtype)
        delta = torch.randn if self.softplus else lambda *s: torch.rand(*s) + 0.05
        A = -torch.rand(d, n) * 2
        if self.is_complex:
            A = A + 3j * torch.randn(d, n)
        made = {
            "u": activation(torch.randn, layout=self.layouts[0]),
            "delta": activation(delta, layout=self.layouts[1]),
            "A": parameter(A, state),
            "B": self._projection(self.groups[0], self.layouts[2], dtype, state),
            "C": self._projection(self.groups[1], self.layouts[3], dtype, state),
        }
        if self.skip:
            made["D"] = parameter(torch.randn(d), real)
        if self.gate:
            made["z"] = activation(torch.randn, layout=self.layouts[4])
        if self.bias:
            made["delta_bias"] = parameter(torch.rand(d) * 0.5, real)
        if self.carry:
            made["initial_state"] = parameter(torch.randn(b, d, n, dtype=state), state)
        return made

    def _projection(self, groups: int, layout: str, dtype: torch.dtype, state: torch.dtype) -> Leaf:
        if groups == 0:
            return parameter(torch.randn(self.d, self.n, dtype=state), state)
        values = partial(torch.randn, dtype=state)
        variable = state if self.is_complex else dtype
        middle = () if groups == 1 else (groups,)
        return leaf(values, (self.b, self.l, *middle, self.n), variable, layout)

    def options(self) -> dict[str, object]:
        return {"delta_softplus": self.softplus, "reverse": self.reverse}

    def cotangents(self) -> tuple[Tensor, Tensor]:
        state = torch.complex128 if self.is_complex else torch.float64
        return torch.randn(self.b, self.l, self.d), torch.randn(self.b, self.d, self.n, dtype=state)


@st.composite
def cases(draw: st.DrawFn, is_complex: bool = False) -> Case:
    d = draw(st.sampled_from([0, 1, 2, 3, 6, 12, 16, 17, 24, 33]))
    groups = st.sampled_from([0, 1] + [g for g in (2, 3, 4, 6) if d % g == 0])
    flags = [draw(st.booleans()) for _ in range(6)]
    return Case(
        draw(st.integers(0, 3)),
        draw(st.sampled_from(LENGTHS)),
        d,
        draw(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 16, 17])),
        (draw(groups), draw(groups)),
        is_complex,
        *flags,
        layouts=tuple(draw(layouts) for _ in range(5)),
        seed=draw(st.integers(0, 2**16)),
    )


def check_against_reference(case: Case, dtype: torch.dtype, backend: str) -> None:
    leaves = case.leaves(dtype)
    cotangents = case.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    # Both sides start from the same rounded numbers.
    cotangents = cotangents[0].to(dtype), cotangents[1].to(leaves["A"].storage.dtype)
    expected = run(selective_scan_reference, wide, cotangents, **case.options())
    got = run(selective_scan, leaves, cotangents, backend=backend, **case.options())
    assert got["y"].dtype is dtype
    assert got["final state"].dtype is leaves["A"].storage.dtype
    for name, made in leaves.items():
        assert got[f"gradient of {name}"].dtype is made.storage.dtype
    assert_all_close(got, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases())
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    check_against_reference(case, dtype, backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(is_complex=True))
def test_values_and_gradients_complex(case: Case, backend: str, dtype: torch.dtype) -> None:
    check_against_reference(case, dtype, backend)


EVERYTHING = Case(
    2, 37, 12, 5, (1, 3), False, True, True, True, True, True, False, ("contiguous",) * 5, 1
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(cut=st.integers(0, 37), case=cases())
def test_carried_state_joins_the_pieces(backend: str, reverse: bool, cut: int, case: Case) -> None:
    """Two calls, the second from the final state of the first, equal one; gradients too."""
    case = replace(case, l=37, reverse=reverse, carry=True)
    leaves = case.leaves(torch.float64)
    cotangents = case.cotangents()

    def in_two(*, return_final_state: bool, initial_state: Tensor, **views: object) -> object:
        assert return_final_state
        spans = [slice(0, cut), slice(cut, None)]
        state, pieces = initial_state, []
        for span in reversed(spans) if reverse else spans:
            cutout = {k: v[:, span] if is_activation(v) else v for k, v in views.items()}
            y, state = selective_scan(**cutout, initial_state=state, return_final_state=True)
            pieces.append(y)
        return torch.cat(pieces[::-1] if reverse else pieces, 1), state

    options = {**case.options(), "backend": backend}
    whole = run(selective_scan, leaves, cotangents, **options)
    assert_all_close(run(in_two, leaves, cotangents, **options), whole, 1e-11)


def is_activation(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 2


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases())
def test_reverse_is_forward_on_flipped_steps(backend: str, case: Case) -> None:
    case = replace(case, reverse=False)
    leaves = case.leaves(torch.float64)
    y_cotangent, state_cotangent = case.cotangents()

    def flipped(**arguments: object) -> object:
        turned = {
            k: v.flip(1) if is_activation(v) and k != "initial_state" else v
            for k, v in arguments.items()
        }
        y, state = selective_scan(**turned, reverse=True)
        return y.flip(1), state

    options = {"delta_softplus": case.softplus, "backend": backend}
    forward = run(selective_scan, leaves, (y_cotangent, state_cotangent), **options)
    backward = run(flipped, leaves, (y_cotangent, state_cotangent), **options)
    assert_all_close(backward, forward, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(lengths=st.lists(st.integers(0, 9), max_size=5), case=cases(), is_int32=st.booleans())
def test_packed_sequences_are_separate_calls(
    backend: str, reverse: bool, lengths: list[int], case: Case, is_int32: bool
) -> None:
    # Sequences enter as the batch axis of the states: make those with b = number of sequences.
    packed = replace(case, b=1, l=sum(lengths), reverse=reverse, carry=False)
    leaves = packed.leaves(torch.float64)
    if case.carry:
        state = torch.randn(len(lengths), case.d, case.n)
        leaves["initial_state"] = parameter(state, torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32 if is_int32 else torch.int64)
    cotangents = packed.cotangents()[0], torch.randn(len(lengths), case.d, case.n)

    def one_by_one(
        *, return_final_state: bool, initial_state: Tensor | None = None, **views: object
    ) -> object:
        assert return_final_state
        ys, states = [views["u"][:, :0]], [views["A"].new_zeros(0, case.d, case.n)]
        for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
            cutout = {k: v[:, start:stop] if is_activation(v) else v for k, v in views.items()}
            state = None if initial_state is None else initial_state[i : i + 1]
            y, state = selective_scan_reference(
                **cutout, initial_state=state, return_final_state=True
            )
            ys.append(y)
            states.append(state)
        return torch.cat(ys, 1), torch.cat(states)

    expected = run(one_by_one, leaves, cotangents, **packed.options())
    options = {**packed.options(), "backend": backend, "cu_seqlens": offsets}
    assert_all_close(run(selective_scan, leaves, cotangents, **options), expected, 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_sequences_do_not_leak(backend: str) -> None:
    case = replace(EVERYTHING, b=1, l=20, groups=(1, 1), carry=False)
    views = {k: v.view(v.storage).detach() for k, v in case.leaves(torch.float32).items()}
    offsets = torch.tensor([0, 7, 20])
    call = partial(selective_scan, delta_softplus=True, backend=backend, cu_seqlens=offsets)
    clean = call(**views)
    views["u"] = views["u"].clone()
    views["u"][:, :7] = float("nan")
    poisoned = call(**views)
    assert torch.isnan(poisoned[:, :7]).all()
    assert torch.equal(poisoned[:, 7:], clean[:, 7:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtypes", "work"),
    [
        ((torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16), torch.float32),
        ((torch.float32, torch.bfloat16, torch.float16, torch.float32), torch.float32),
        ((torch.float16, torch.bfloat16, torch.float16, torch.bfloat16), torch.float32),
        ((torch.float32, torch.float64, torch.float32, torch.float32), torch.float64),
    ],
)
def test_mixed_types_compute_in_the_widest(
    backend: str, dtypes: tuple[torch.dtype, ...], work: torch.dtype
) -> None:
    leaves = EVERYTHING.leaves(torch.float32)
    for name, dtype in zip(("u", "delta", "B", "z"), dtypes, strict=True):
        leaves[name] = parameter(leaves[name].storage.detach(), dtype)
    cotangents = EVERYTHING.cotangents()
    got = run(selective_scan, leaves, cotangents, backend=backend, **EVERYTHING.options())
    assert got["y"].dtype is dtypes[0]
    assert got["final state"].dtype is work
    for name, dtype in zip(("u", "delta", "B", "z"), dtypes, strict=True):
        assert got[f"gradient of {name}"].dtype is dtype

    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    cotangents = (cotangents[0].to(dtypes[0]), cotangents[1])
    expected = run(selective_scan_reference, wide, cotangents, **EVERYTHING.options())
    for name, value in expected.items():
        stored = got[name].dtype
        tolerance = max(TOLERANCE[stored], 1e-5)
        assert_close(got[name], value, tolerance, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend: str) -> None:
    views = {k: v.view(v.storage).detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    call = partial(selective_scan, **views, **EVERYTHING.options(), backend=backend)
    plain = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(), plain)


EXTREMES = {
    "steps that underflow every decay": ("delta", 1e4),
    "vanishing steps": ("delta", 1e-30),
    "no decay": ("A", 0.0),
    "instant decay": ("A", -1e30),
    "growth to infinity": ("A", 80.0),
    "huge input": ("u", 1e30),
    "closed gate": ("z", -1e4),
    "open gate": ("z", 1e4),
    "step far above the softplus threshold": ("delta_bias", 50.0),
    "step far below the softplus threshold": ("delta_bias", -200.0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_values(backend: str, name: str) -> None:
    argument, value = EXTREMES[name]
    leaves = EVERYTHING.leaves(torch.float32)
    leaves[argument] = parameter(torch.full_like(leaves[argument].storage, value), torch.float32)
    cotangents = EVERYTHING.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(selective_scan_reference, wide, cotangents, **EVERYTHING.options())
    got = run(selective_scan, leaves, cotangents, backend=backend, **EVERYTHING.options())
    for key, exact in expected.items():
        finite = exact.abs() < 1e37  # beyond, float32 may round to infinity
        assert torch.equal(torch.isfinite(got[key]) | ~finite, torch.ones_like(finite)), key
        assert_close(
            got[key].where(finite, 0) * finite, exact.where(finite, 0), 3e-5, f"{name}: {key}"
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["u", "delta", "A", "B", "C", "D", "z", "initial_state"])
def test_special_values_spread_as_in_the_reference(
    backend: str, value: float, argument: str
) -> None:
    views = {k: v.view(v.storage).detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    views[argument] = views[argument].clone()
    views[argument].view(-1)[views[argument].numel() // 2] = value
    call = partial(selective_scan, **views, delta_softplus=True, return_final_state=True)
    for name, got, expected in zip(
        ("y", "final state"), call(backend=backend), call(backend="reference"), strict=True
    ):
        assert_same_special_values(got, expected, name)


def test_gradcheck() -> None:
    case = replace(EVERYTHING, b=1, l=5, d=3, n=2, groups=(1, 3))
    leaves = case.leaves(torch.float64)
    names = list(leaves)

    def call(*tensors: Tensor) -> object:
        arguments = dict(zip(names, tensors, strict=True))
        return selective_scan(**arguments, **case.options(), return_final_state=True, backend="cpu")

    assert torch.autograd.gradcheck(call, [x.storage for x in leaves.values()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_through_the_final_state_alone(backend: str) -> None:
    leaves = EVERYTHING.leaves(torch.float64)
    tensors = {k: v.storage for k, v in leaves.items()}
    wanted = [tensors[k] for k in ("u", "delta", "A", "B", "initial_state")]
    weights = torch.randn(2, 12, 5, dtype=torch.float64)

    def gradients(**options: object) -> tuple[Tensor, ...]:
        _, state = selective_scan(
            **tensors, **EVERYTHING.options(), return_final_state=True, **options
        )
        return torch.autograd.grad((state * weights).sum(), wanted)

    for got, expected in zip(
        gradients(backend=backend), gradients(backend="reference"), strict=True
    ):
        assert_close(got, expected, 1e-12)


def test_only_wanted_gradients_are_returned() -> None:
    tensors = {k: v.storage.detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    tensors["A"].requires_grad_()
    selective_scan(**tensors, backend="cpu").sum().backward()
    assert tensors["A"].grad is not None
    assert all(tensors[k].grad is None for k in tensors if k != "A")


def test_second_derivatives() -> None:
    """The kernel refuses them, even for one part of a loss only; the reference has them."""
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}

    def penalty(backend: str) -> Tensor:
        y = selective_scan(**tensors, backend=backend)
        (gradient,) = torch.autograd.grad(y.sum(), tensors["u"], create_graph=True)
        return gradient.square().sum() + y.sum()

    with pytest.raises(BackendError, match=r"selective_scan: .* cannot be differentiated again"):
        penalty("cpu").backward()
    penalty("reference").backward()
    assert tensors["u"].grad is not None


def test_input_changed_before_backward_is_noticed() -> None:
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}
    tensors["delta"] = tensors["delta"].detach().clone()
    y = selective_scan(**tensors, backend="cpu")
    tensors["delta"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_final_state_of_no_steps_is_a_copy_of_the_initial(backend: str) -> None:
    u = torch.randn(2, 0, 3)
    state = torch.randn(2, 3, 4)
    y, final = selective_scan(
        u,
        u,
        -torch.rand(3, 4),
        torch.randn(2, 0, 4),
        torch.randn(3, 4),
        initial_state=state,
        return_final_state=True,
        backend=backend,
    )
    assert y.shape == (2, 0, 3)
    assert torch.equal(final, state)
    assert final.data_ptr() != state.data_ptr()


def test_repeated_calls_give_the_same_bits() -> None:
    leaves = replace(EVERYTHING, l=200, b=3).leaves(torch.float32)
    cotangents = torch.randn(3, 200, 12), torch.randn(3, 12, 5)
    first, second = (
        run(selective_scan, leaves, cotangents, backend="cpu", **EVERYTHING.options())
        for _ in range(2)
    )
    for name in first:
        assert torch.equal(first[name], second[name]), name
