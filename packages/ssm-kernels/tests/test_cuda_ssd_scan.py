"""The CUDA kernels of the SSD scan, simulated, against the float64 reference."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    TOLERANCE,
    assert_all_close,
    gradient_slack,
    parameter,
    run,
)
from ssd_cases import EVERYTHING, Case, cases
from torch import Tensor

from ssm_kernels import native_extension, ssd_scan, ssd_scan_reference

few = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PLAIN = replace(EVERYTHING, skip=0, gate=False, bias=False, softplus=False, limited=False)


def compare(case: Case, dtype: torch.dtype, **options: object) -> dict[str, Tensor]:
    """Compare values and gradients with the reference in double precision."""
    leaves = case.leaves(dtype)
    if "cu_seqlens" in options:
        shape = len(options["cu_seqlens"]) - 1, case.h, case.p, case.n
        state = torch.float64 if dtype is torch.float64 else torch.float32
        leaves["initial_state"] = parameter(torch.randn(shape), state)
    cotangents = case.cotangents(len(leaves["initial_state"].storage) if case.carry else case.b)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    reference = ssd_scan if "cu_seqlens" in options else ssd_scan_reference
    more = {**options, "backend": "reference"} if "cu_seqlens" in options else {}
    expected = run(reference, wide, cotangents, **case.options(), **more)
    got = run(ssd_scan, leaves, cotangents, **case.options(), **options)
    assert got["y"].dtype is dtype
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))
    return got


small = cases(heads=(0, 1, 2, 4), rows=(0, 1, 5, 17), states=(0, 1, 3, 19), batch=2)


@pytest.mark.parametrize("dtype", DTYPES)
@few
@given(case=small)
def test_values_and_gradients(simulated: None, case: Case, dtype: torch.dtype) -> None:
    # steps at a limit, whose gradient depends on the last bit
    compare(replace(case, limited=case.limited and dtype.itemsize > 2), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_more_than_one_tile(simulated: None, dtype: torch.dtype, reverse: bool) -> None:
    limited = dtype.itemsize > 2
    case = replace(EVERYTHING, b=1, l=65, h=2, g=1, limited=limited, reverse=reverse)
    compare(replace(case, p=67, n=2), dtype)
    compare(replace(case, p=3, n=70, skip=1), dtype)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[5, 70, 0, 1], [0, 0], [64, 64], []])
def test_packed_sequences(simulated: None, lengths: list[int], reverse: bool) -> None:
    case = replace(EVERYTHING, b=1, l=sum(lengths), h=2, g=1, reverse=reverse)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    compare(case, torch.float32, cu_seqlens=offsets)
    compare(replace(case, carry=True, skip=1), torch.float64, cu_seqlens=offsets)


def test_strides_of_zero(simulated: None) -> None:
    x = torch.randn(2, 1, 2, 1).expand(2, 66, 2, 5)
    dt, B = torch.rand(1, 1, 2).expand(2, 66, 2), torch.randn(2, 1, 1, 3).expand(2, 66, 1, 3)
    A = -torch.rand(2)
    expected = ssd_scan_reference(x, dt, A, B, B)
    assert torch.allclose(ssd_scan(x, dt, A, B, B), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_give_the_same_bits(simulated: None, dtype: torch.dtype) -> None:
    case = replace(EVERYTHING, b=1, l=70)
    runs = [
        run(ssd_scan, case.leaves(dtype), case.cotangents(), **case.options()) for _ in range(2)
    ]
    for name, value in runs[0].items():
        assert torch.equal(runs[1][name], value), name


def test_numbers_that_are_not_finite_stay_in_their_sequence(simulated: None) -> None:
    case = replace(PLAIN, b=1, l=12, h=2, g=1, carry=False)
    leaves = case.leaves(torch.float32)
    with torch.no_grad():
        leaves["x"].storage[:, 4:8] = torch.tensor([math.nan, math.inf, -math.inf, 1e38]).view(
            4, 1, 1
        )
    cotangents = torch.ones(1, 12, 2, 3), torch.ones(3, 2, 3, 5)
    got = run(ssd_scan, leaves, cotangents, cu_seqlens=torch.tensor([0, 4, 8, 12]))
    for name in ("y", *(f"gradient of {k}" for k in ("x", "dt", "B", "C"))):
        assert got[name][:, [0, 1, 2, 3, 8, 9, 10, 11]].isfinite().all(), name
    assert got["final state"][[0, 2]].isfinite().all()


def test_large_step_sizes_do_not_cost_digits(simulated: None) -> None:
    """Decays near 1 after large ones: a difference of sums would have lost them."""
    l = 64
    dt = torch.full((1, l, 1), 1e-3)
    dt[:, 0] = 4000.0
    x, B = torch.randn(1, l, 1, 2), torch.randn(1, l, 1, 3)
    arguments = {"x": x, "dt": dt, "A": torch.tensor([-8.0]), "B": B, "C": B}
    expected = ssd_scan_reference(**{k: v.double() for k, v in arguments.items()})[:, 1:]
    got = ssd_scan(**arguments)[:, 1:]
    assert (got - expected).abs().max() < 1e-6 * expected.abs().max()


def test_offsets_are_confined(simulated: None) -> None:
    """Nonsense that nobody has looked at leads nowhere outside the tensors."""
    x, dt = torch.randn(1, 70, 1, 2), torch.rand(1, 70, 1)
    A, B = -torch.ones(1), torch.ones(1, 70, 1, 1)
    module = native_extension.module_for(x)
    offsets = torch.tensor([50, -7, 900, 3, 1 << 60])
    y, final = torch.zeros_like(x), torch.zeros(4, 1, 2, 1)
    inputs = module.SsdInputs()
    inputs.set_sizes((1, 70, 1, 2, 1, 1), 0)
    views = [(m.data_ptr(), *m.stride(), *[0] * (4 - m.dim())) for m in (x, dt, B, B)]
    inputs.set_activations([*views, (0,) * 5])
    inputs.set_parameters([A.data_ptr(), 0, 0, 0], False)
    inputs.set_packing(offsets.data_ptr(), 4)
    inputs.set_mode(False, 0.0, math.inf, False, 1)
    native_extension.place(inputs, module, x)
    module.ssd_scan_forward(inputs, (y.data_ptr(), *y.stride()), final.data_ptr())
    assert y.isfinite().all()


@few
@given(case=small, cut=st.integers(0, 130))
def test_carried_state_joins_the_pieces(simulated: None, case: Case, cut: int) -> None:
    case = replace(case, b=1, h=2, g=1, l=130, p=2, n=3, carry=True, reverse=False)
    tensors = {k: x.view(x.storage).detach() for k, x in case.leaves(torch.float64).items()}
    options = {**case.options(), "return_final_state": True}
    whole = ssd_scan(**tensors, **options)
    pieces = []
    for span in (slice(0, cut), slice(cut, None)):
        steps = {k: v[:, span] for k, v in tensors.items() if k in ("x", "dt", "B", "C", "z")}
        y, state = ssd_scan(**{**tensors, **steps}, **options)
        tensors["initial_state"] = state
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, 1), whole[0], atol=1e-12)
    assert torch.allclose(state, whole[1], atol=1e-12)
