"""The compiled SSD scan in chunks against the chunked form in PyTorch: every instruction set.

Called directly: `ssd_scan` takes steps for the small heads that make most of the odd sizes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, TOLERANCE, assert_close, examples, gradient_slack
from ssd_cases import EVERYTHING, Case, cases
from torch import Tensor

from ssm_kernels import native, native_ssd_scan, ssd_chunked, ssd_chunked_backward
from ssm_kernels.ssd_scan_autograd import SsdInputs, SsdOptions

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")
ISAS = native.available_isas() if native.AVAILABLE else []


def inputs_of(case: Case, dtype: torch.dtype) -> SsdInputs:
    tensors = {name: leaf.view(leaf.storage).detach() for name, leaf in case.leaves(dtype).items()}
    return SsdInputs(*(tensors.get(name) for name in SsdInputs._fields))


def options_of(case: Case) -> SsdOptions:
    limits = (0.3, 0.9) if case.limited else (0.0, math.inf)
    return SsdOptions(case.softplus, *limits, case.reverse, 0)


def compare(case: Case, dtype: torch.dtype, lengths: list[int] | None = None) -> None:
    """Values and gradients, in `dtype` against double precision."""
    inputs, options = inputs_of(case, dtype), options_of(case)
    offsets = None
    if lengths is not None:
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        inputs = inputs._replace(initial_state=None)
    wide = SsdInputs(*(None if x is None else x.double() for x in inputs))
    grad_y, grad_state = case.cotangents(None if lengths is None else len(lengths))
    grads = (
        grad_y.to(dtype),
        grad_state.to(torch.float64 if dtype is torch.float64 else torch.float32),
    )

    expected: list[Tensor | None] = [
        *ssd_chunked.forward(*wide, options=options, lengths=lengths),
        *ssd_chunked_backward.backward(
            *(g.double() for g in grads), *wide, options=options, lengths=lengths
        ),
    ]
    got = [
        *native_ssd_scan.ssd_scan_forward(*inputs, options=options, offsets=offsets),
        *native_ssd_scan.ssd_scan_backward(*grads, *inputs, options=options, offsets=offsets),
    ]
    names = ["y", "final state", *(f"gradient of {name}" for name in SsdInputs._fields)]
    for name, mine, wanted in zip(names, got, expected, strict=True):
        assert (mine is None) == (wanted is None), name
        if mine is not None:
            slack = gradient_slack(dtype) if "gradient" in name else 1.0
            assert_close(mine, wanted, TOLERANCE[dtype] * slack)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(case=cases())
def test_every_isa(case: Case, dtype: torch.dtype, isa: str) -> None:
    # steps at a limit, whose gradient depends on the last bit
    case = replace(case, limited=case.limited and dtype.itemsize > 2)
    before = native.isa()
    native.set_isa(isa)
    try:
        compare(case, dtype)
    finally:
        native.set_isa(before)


@examples
@given(case=cases(), lengths=st.lists(st.sampled_from([0, 1, 5, 64, 70]), max_size=5))
def test_packed_sequences(case: Case, lengths: list[int]) -> None:
    compare(replace(case, b=1, l=sum(lengths), carry=False), torch.float64, lengths)


@pytest.mark.parametrize(("p", "n"), [(64, 128), (65, 127), (16, 256), (128, 16)])
def test_ordinary_heads(isa: str, p: int, n: int) -> None:
    """Several panels of columns, and rows that no block size divides."""
    compare(replace(EVERYTHING, b=1, l=150, p=p, n=n, limited=False), torch.float32)
    compare(replace(EVERYTHING, b=1, l=150, p=p, n=n, limited=False), torch.float64)


def test_large_decays_and_growth() -> None:
    """Decays of 0, and of more than 1 where A is positive."""
    case = replace(EVERYTHING, l=70, p=17, limited=False)
    for A in (-1e4, -1e-6, 0.0, 0.02):
        inputs = inputs_of(case, torch.float64)._replace(A=torch.full((4,), A).double())
        options = options_of(case)
        got = native_ssd_scan.ssd_scan_forward(*inputs, options=options, offsets=None)
        expected = ssd_chunked.forward(*inputs, options=options, lengths=None)
        for mine, wanted in zip(got, expected, strict=True):
            assert mine.isfinite().all()
            assert_close(mine, wanted, 1e-12)
