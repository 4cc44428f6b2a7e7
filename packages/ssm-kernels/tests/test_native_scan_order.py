"""The compiled scan where time does not follow the axis l: packed sequences, columns, sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_scan_cases import Case, Mode, error, make_case, native_gradients, native_scan
from torch import Tensor

from ssm_kernels import native
from ssm_kernels.native_scan import Scan, checkpoint_shape

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")
OVER_STEPS = ("u", "delta", "z", "B", "C")


def cut(case: Case, steps: slice, row: int | None = None) -> Case:
    """The steps of one sequence, with its own initial state."""
    parts = {}
    for name in OVER_STEPS:
        tensor = getattr(case, name)
        if tensor is not None and tensor.dim() > 2:
            parts[name] = tensor[:, steps]
    if row is not None and case.initial_state is not None:
        parts["initial_state"] = case.initial_state[row : row + 1]
    return replace(case, **parts)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 5, 31, 32, 33, 64, 70]), max_size=6),
    d=st.sampled_from([1, 17, 70]),
    constant=st.sampled_from(["", "B", "BC"]),
    complex_A=st.booleans(),
    optional=st.booleans(),
    reverse=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_packed_sequences_are_separate_scans(
    lengths: list[int],
    d: int,
    constant: str,
    complex_A: bool,
    optional: bool,
    reverse: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    l, s = sum(lengths), len(lengths)
    case = make_case(
        (1, l, d, 3), dtype=dtype, constant=constant, optional=optional, complex_A=complex_A
    )
    if optional:
        case = replace(case, initial_state=torch.randn(s, d, 3, dtype=case.initial_state.dtype))
    mode = Mode(reverse=reverse)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    y, state, _ = native_scan(case, mode, offsets)
    grad_y, grad_state = torch.randn(y.shape).to(dtype), torch.randn(s, d, 3, dtype=state.dtype)
    gradients = native_gradients(case, mode, grad_y, grad_state, offsets)
    sums = {n: torch.zeros_like(gradients[n]) for n in ("A", *constant)}
    for row, first in enumerate(offsets[:-1].tolist()):
        steps = slice(first, first + lengths[row])
        alone = cut(case, steps, row)
        alone_y, alone_state, _ = native_scan(alone, mode)
        assert torch.equal(y[:, steps], alone_y)
        assert torch.equal(state[row : row + 1], alone_state)
        got = native_gradients(alone, mode, grad_y[:, steps], grad_state[row : row + 1])
        for name in OVER_STEPS:
            if gradients[name] is not None and name not in constant:
                assert torch.equal(gradients[name][:, steps], got[name]), name
        if optional:
            assert torch.equal(gradients["initial_state"][row : row + 1], got["initial_state"])
        for name in sums:
            sums[name] += got[name]
    for name, total in sums.items():
        assert error(gradients[name], total) <= 1e-5, name


def test_no_sequence_at_all() -> None:
    case = make_case((1, 0, 5, 3), optional=False)
    offsets = torch.zeros(1, dtype=torch.int64)
    y, state, _ = native_scan(case, Mode(), offsets)
    assert (y.shape, state.shape) == ((1, 0, 5), (0, 5, 3))
    gradients = native_gradients(case, Mode(), y, None, offsets)
    assert gradients["A"].eq(0).all()


def test_packed_bits_do_not_depend_on_the_number_of_threads() -> None:
    lengths = torch.arange(40) * 7 % 45
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    case = make_case((1, int(lengths.sum()), 70, 4), optional=False)
    grad_y, before = torch.randn(case.u.shape), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            gradients = native_gradients(case, Mode(), grad_y, None, offsets)
            results.append([native_scan(case, Mode(), offsets)[0], *gradients.values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(a is b or torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def by_columns(t: Tensor, rows: int, columns: int) -> Tensor:
    """A copy whose steps run down the columns of the image whose rows the steps of `t` are."""
    return t.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("complex_A", [False, True])
@pytest.mark.parametrize("image", [(1, 1), (1, 40), (40, 1), (7, 11), (33, 3), (3, 33), (32, 32)])
def test_columns_are_a_scan_of_the_transposed_image(
    isa: str, image: tuple[int, int], complex_A: bool, reverse: bool
) -> None:
    rows, columns = image
    case = make_case((2, rows * columns, 20, 3), complex_A=complex_A)
    turned = replace(case, **{n: by_columns(getattr(case, n), rows, columns) for n in OVER_STEPS})
    mode, plain = Mode(reverse=reverse, columns=columns), Mode(reverse=reverse)
    y, state, _ = native_scan(case, mode)
    turned_y, turned_state, _ = native_scan(turned, plain)
    assert torch.equal(by_columns(y, rows, columns), turned_y)
    assert torch.equal(state, turned_state)
    grad_y = torch.randn(y.shape)
    got = native_gradients(case, mode, grad_y, None)
    expected = native_gradients(turned, plain, by_columns(grad_y, rows, columns), None)
    for name, gradient in expected.items():
        value = by_columns(got[name], rows, columns) if name in OVER_STEPS else got[name]
        assert torch.equal(value, gradient), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("columns", [0, 11])
def test_results_can_be_added_to_tensors(isa: str, dtype: torch.dtype, columns: int) -> None:
    case, mode = make_case((2, 77, 35, 3), dtype=dtype), Mode(columns=columns)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    ungated = replace(case, z=None)
    before = torch.randn(2, 77, 35, dtype=wide)
    total = before.clone()
    options = {"mode": mode.native(), "save_for_backward": True, "add": True}
    checkpoints = native.selective_scan_forward(*ungated.tensors(), **options, into=total)[2]
    one = native_scan(ungated, mode)[0]
    rounding = 4e-3 if dtype == torch.bfloat16 else 0.0
    assert error(total, before + one) <= 1e-6 + rounding
    gated = before.clone()
    native.selective_scan_forward(*case.tensors(), **options, into=gated)
    z = case.z.to(wide)
    assert error(gated, total * torch.nn.functional.silu(z)) <= 1e-6

    grad_y = torch.randn(2, 77, 35).to(dtype)
    expected = native_gradients(case, mode, grad_y, None)
    sum_u, sum_z = before.clone(), before.clone()
    gradients = native.selective_scan_backward(
        grad_y,
        None,
        *case.tensors(),
        checkpoints,
        mode=mode.native(),
        need_initial_state_grad=True,
        into=native.ScanGradients(u=sum_u, z=sum_z),
        add=(True, True),
    )
    assert gradients[0] is sum_u
    limit = 1e-6 if dtype != torch.bfloat16 else 4e-3
    assert error(sum_u - before, expected["u"].to(wide)) <= limit
    assert error(sum_z - before, expected["z"].to(wide)) <= limit
    for index, name in enumerate(("delta", "A", "B", "C"), start=1):
        assert torch.equal(gradients[index], expected[name])


@pytest.mark.parametrize("lengths", [None, [], [0], [1, 31, 0, 32, 33], [64, 64]])
def test_checkpoints_have_the_size_the_kernel_expects(lengths: list[int] | None) -> None:
    l = 97 if lengths is None else sum(lengths)
    batch = 3 if lengths is None else 1
    offsets = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    case = make_case((batch, l, 5, 2), optional=False)
    scan = Scan(case.tensors(), offsets, native.ScanMode())
    shape = checkpoint_shape(batch, l, 5, 2, None if lengths is None else len(lengths))
    assert shape[0] * shape[1] == native.extension._native.scan_chunks(scan.inputs)
