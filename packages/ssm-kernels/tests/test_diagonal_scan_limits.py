"""The diagonal scan at its limits: NaN, extreme values, odd gradients, threads, wrong arguments."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from diagonal_cases import CONSTANT, EVERYTHING, FULL, LONG, Case, factors, randn
from kernel_cases import (
    BACKENDS,
    assert_all_close,
    assert_same_special_values,
    parameter,
    run,
)
from torch import Tensor

from ssm_kernels import (
    ArgumentError,
    BackendError,
    DTypeError,
    ShapeError,
    diagonal_scan,
    diagonal_scan_reference,
)

SPECIAL = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("own", [FULL, CONSTANT, (True, True, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("argument", ["a", "u", "initial_state"])
def test_special_values_spread_as_in_the_reference(
    own: tuple[bool, bool, bool], dtype: torch.dtype, value: float, argument: str
) -> None:
    leaves = replace(EVERYTHING, own=own).leaves(dtype)
    flat = (
        torch.view_as_real(leaves[argument].storage.detach())
        if dtype.is_complex
        else (leaves[argument].storage.detach())
    )
    flat.view(-1)[flat.numel() // 2] = value
    cotangents = EVERYTHING.cotangents(dtype)
    got = run(diagonal_scan, leaves, cotangents, backend="cpu")
    expected = run(diagonal_scan, leaves, cotangents, backend="reference")
    for name, result in expected.items():
        if dtype.is_complex:  # a complex sum of PyTorch makes both parts NaN where one is
            assert torch.equal(got[name].isfinite(), result.isfinite()), name
        else:
            assert_same_special_values(got[name], result, name)


@pytest.mark.slow
@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("argument", ["a", "u", "initial_state"])
def test_special_values_in_chunks(value: float, argument: str) -> None:
    """Strong decays underflow within a chunk, where 0 times infinity would give NaN."""
    leaves = LONG.leaves(torch.float32)
    with torch.no_grad():
        leaves["a"].storage.clamp_(min=0.1)
        view = leaves[argument].storage.view(-1)
        view[view.numel() // 2] = value
    cotangents = LONG.cotangents(torch.float32)
    got = run(diagonal_scan, leaves, cotangents, backend="cpu")
    expected = run(diagonal_scan, leaves, cotangents, backend="reference")
    for name, result in expected.items():
        assert_same_special_values(got[name], result, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_extreme_values(backend: str, dtype: torch.dtype, scale: float) -> None:
    leaves = EVERYTHING.leaves(dtype)
    leaves["u"] = parameter(leaves["u"].storage.detach() * scale, dtype)
    cotangents = EVERYTHING.cotangents(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(diagonal_scan_reference, wide, cotangents)
    got = run(diagonal_scan, leaves, cotangents, backend=backend)
    assert_all_close(got, expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("own", [FULL, CONSTANT])
@pytest.mark.parametrize("d", [16, 256])  # run in chunks, and not
def test_slow_poles_stay_accurate(own: tuple[bool, bool, bool], d: int) -> None:
    """Memory of thousands of steps: rounding errors add up as little as in a plain loop."""
    case = replace(LONG, d=d, l=16384, own=own, carry=False)
    leaves = case.leaves(torch.float32)
    with torch.no_grad():
        leaves["a"].storage.uniform_(0.999, 0.9999)
    cotangents = case.cotangents(torch.float32)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(diagonal_scan_reference, wide, cotangents)
    got = run(diagonal_scan, leaves, cotangents, backend="cpu")
    assert_all_close(got, expected, 4e-6)


@pytest.mark.parametrize("own", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck(own: tuple[bool, bool, bool], dtype: torch.dtype, reverse: bool) -> None:
    leaves = replace(EVERYTHING, b=2, l=4, d=3, own=own).leaves(dtype)

    def call(*tensors: Tensor) -> object:
        named = dict(zip(leaves, tensors, strict=True))
        return diagonal_scan(**named, reverse=reverse, return_final_state=True, backend="cpu")

    assert torch.autograd.gradcheck(call, [x.storage for x in leaves.values()])


@pytest.mark.parametrize("wanted", ["a", "u", "initial_state"])
@pytest.mark.parametrize("own", [FULL, CONSTANT])
def test_only_wanted_gradients_are_returned(wanted: str, own: tuple[bool, bool, bool]) -> None:
    made = replace(EVERYTHING, own=own).leaves(torch.float32)
    full = {k: v.storage for k, v in made.items()}
    expected = torch.autograd.grad(diagonal_scan(**full, backend="cpu").sum(), full[wanted])[0]
    tensors = {k: v.detach() for k, v in full.items()}
    tensors[wanted].requires_grad_()
    diagonal_scan(**tensors, backend="cpu").sum().backward()
    assert tensors[wanted].grad is not None
    assert torch.equal(tensors[wanted].grad, expected)
    assert all(tensors[k].grad is None for k in tensors if k != wanted)


def test_gradient_of_the_final_state_alone() -> None:
    leaves = EVERYTHING.leaves(torch.complex64)
    tensors = {k: v.storage for k, v in leaves.items()}
    results = []
    for backend in BACKENDS:
        _, final = diagonal_scan(**tensors, return_final_state=True, backend=backend)
        loss = final.abs().square().sum()
        results.append(
            dict(zip(tensors, torch.autograd.grad(loss, [*tensors.values()]), strict=True))
        )
    assert_all_close(results[1], results[0], 1e-5)


def test_second_derivatives() -> None:
    """The kernel refuses them, even for one part of a loss only; the reference has them."""
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}

    def penalty(backend: str) -> Tensor:
        h = diagonal_scan(**tensors, backend=backend)
        (gradient,) = torch.autograd.grad(h.sum(), tensors["u"], create_graph=True)
        return gradient.square().sum() + h.sum()

    with pytest.raises(BackendError, match=r"diagonal_scan: .* cannot be differentiated again"):
        penalty("cpu").backward()
    penalty("reference").backward()
    assert tensors["a"].grad is not None


def test_pending_conjugations_and_negations_are_carried_out() -> None:
    def negated(t: Tensor) -> Tensor:
        made = torch.complex(torch.zeros_like(t), -t).conj().imag
        assert made.is_neg()
        return made

    def conjugated(t: Tensor) -> Tensor:
        made = t.conj().resolve_conj().conj()
        assert made.is_conj()
        return made

    for dtype, lazily in ((torch.float32, negated), (torch.complex64, conjugated)):
        plain = {name: leaf.storage for name, leaf in EVERYTHING.leaves(dtype).items()}
        grad_h = EVERYTHING.cotangents(dtype)[0]
        results = []
        for change in (lambda t: t, lazily):
            h = diagonal_scan(**{k: change(t) for k, t in plain.items()}, backend="cpu")
            results.append([h, *torch.autograd.grad(h, [*plain.values()], change(grad_h))])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("own", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("sizes", [(5, 300, 70), (1, 9000, 33), (3, 4500, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_thread_count_does_not_change_the_bits(
    own: tuple[bool, bool, bool], sizes: tuple[int, int, int], dtype: torch.dtype
) -> None:
    case = Case(*sizes, own, "contiguous", "contiguous", True, False, 3)
    leaves, cotangents = case.leaves(dtype), case.cotangents(dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(run(diagonal_scan, leaves, cotangents, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(other[name], value), name


@pytest.mark.parametrize("sizes", [(2, 30, 40), (1, 9000, 33)])
def test_final_state_is_the_last_one(sizes: tuple[int, int, int]) -> None:
    a, u = factors(*sizes, dtype=torch.float32), randn(*sizes, dtype=torch.float32)
    h, final = diagonal_scan(a, u, return_final_state=True, backend="cpu")
    assert torch.equal(h[:, -1], final)
    h, final = diagonal_scan(a, u, return_final_state=True, reverse=True, backend="cpu")
    assert torch.equal(h[:, 0], final)


@pytest.mark.bigmem
def test_more_than_2_to_the_31_elements() -> None:
    l, d = 2**21 + 3, 1024
    u = torch.ones((), dtype=torch.bfloat16).expand(1, l, d)
    a = torch.full((d,), 0.5)
    h = diagonal_scan(a, u, backend="cpu")
    assert h.numel() > 2**31
    assert h[0, 0].eq(1).all()
    assert h[0, [1000, l // 2, l - 1]].eq(2).all()


def test_wrong_arguments_are_named() -> None:
    u = torch.ones(2, 7, 4)
    a = torch.ones(2, 7, 4)
    state = torch.ones(2, 4)
    offsets = torch.tensor([0, 3, 7])
    call = partial(diagonal_scan, a, u)
    expected = r"\(b, l, d\) = \(2, 7, 4\) like u, 1 for any of these axes, or \(d,\)$"
    for wrong in (torch.ones(2, 7, 3), torch.ones(7, 4), torch.ones(3), torch.ones(2, 2, 4)):
        shape = str(tuple(wrong.shape)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ShapeError, match=f"diagonal_scan: a has shape {shape}, .*{expected}"):
            diagonal_scan(wrong, u)
    with pytest.raises(ShapeError, match=r"u has shape \(7, 4\), expected 3 axes \(b, l, d\)$"):
        diagonal_scan(a, u[0])
    with pytest.raises(ShapeError, match=r"initial_state has shape \(4,\), .*\(b, d\) = \(2, 4\)"):
        call(initial_state=state[0])
    with pytest.raises(ShapeError, match=r"\(number of sequences, d\) = \(2, 4\)$"):
        diagonal_scan(a[:1], u[:1], initial_state=state[:1], cu_seqlens=offsets)
    with pytest.raises(ShapeError, match="batch is 2, expected 1 with cu_seqlens"):
        call(cu_seqlens=offsets)
    with pytest.raises(ArgumentError, match=r"cu_seqlens is \[0, 3, 6\], expected non-decreasing"):
        diagonal_scan(a[:1], u[:1], cu_seqlens=torch.tensor([0, 3, 6]))
    with pytest.raises(DTypeError, match=r"a is a float, expected a torch.Tensor$"):
        diagonal_scan(0.5, u)
    with pytest.raises(DTypeError, match=r"u has dtype torch.int64, expected a floating-point"):
        diagonal_scan(a, u.long())
    with pytest.raises(BackendError, match=r"backend 'cuda' cannot run"):
        call(backend="cuda")


def test_an_output_on_large_pages_is_what_smaller_ones_are() -> None:
    """Above 32 MiB the memory of the results is asked for in large pages."""
    torch.manual_seed(0)
    a = torch.polar(torch.rand(512) * 0.2 + 0.8, torch.rand(512) * 6)
    u = torch.randn(3, 4100, 512, dtype=torch.complex64, requires_grad=True)  # 48 MiB
    h = diagonal_scan(a, u)
    (grad_u,) = torch.autograd.grad(h.real.sum(), u)
    for i in range(3):
        alone = u[i : i + 1].detach().requires_grad_()  # 16 MiB
        expected = diagonal_scan(a, alone)
        assert torch.equal(h[i : i + 1], expected)
        assert torch.equal(grad_u[i : i + 1], torch.autograd.grad(expected.real.sum(), alone)[0])
