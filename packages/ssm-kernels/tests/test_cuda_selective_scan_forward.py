"""The CUDA selective scan, forward, simulated on the host, against a float64 loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_scan_cases import (
    LAYOUTS,
    VALUE_ERROR,
    Case,
    Mode,
    error,
    expected_scan,
    make_case,
    native_scan,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("simulated")

# The simulator takes the place of the kernels for the whole test; its state does not change.
property_of_kernels = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = ("u", "delta", "z", "B", "C")


def part(case: Case, steps: slice) -> Case:
    def cut(name: str) -> Tensor | None:
        tensor = getattr(case, name)
        return tensor if tensor is None or tensor.dim() == 2 else tensor[:, steps]

    return replace(case, **{name: cut(name) for name in NAMES})


def check_checkpoints(case: Case, mode: Mode, kept: Tensor) -> None:
    """The state before every 32nd step."""
    b, l, d = case.u.shape
    if kept.numel() == 0:
        return
    chunks = kept.view(b, (l + 31) // 32, -1, d)
    for k in range(chunks.shape[1]):
        steps = slice(l - 32 * k, l) if mode.reverse else slice(0, 32 * k)
        state = expected_scan(part(case, steps), mode)[1]
        numbers = torch.view_as_real(state).flatten(-2) if state.is_complex() else state
        assert error(chunks[:, k].mT, numbers) <= 3e-5


def check(case: Case, mode: Mode, times: float = 3) -> None:
    y, state, kept = native_scan(case, mode)
    expected_y, expected_state = expected_scan(case, mode)
    dtype = case.u.dtype
    scale = times if dtype.itemsize > 2 else 1
    assert y.dtype == dtype
    assert error(y, expected_y) <= VALUE_ERROR[dtype] * scale
    assert error(state, expected_state) <= VALUE_ERROR[state.dtype.to_real()] * times
    check_checkpoints(case, mode, kept)


@property_of_kernels
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 20), st.integers(0, 19)),
    groups=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from(sorted(VALUE_ERROR, key=str)),
    constant=st.sampled_from(["", "", "B", "C", "BC"]),
    optional=st.booleans(),
    is_complex=st.booleans(),
    mode=st.builds(Mode, delta_softplus=st.booleans(), reverse=st.booleans()),
    seed=st.integers(0, 2**31),
)
def test_any_shape_type_and_option(
    sizes: tuple[int, int, int, int],
    groups: int,
    dtype: torch.dtype,
    constant: str,
    optional: bool,
    is_complex: bool,
    mode: Mode,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, l, d, n = sizes
    case = make_case(
        (b, l, d * groups, n),
        groups=groups,
        dtype=dtype,
        constant=constant,
        optional=optional,
        complex_A=is_complex,
    )
    if not mode.delta_softplus:  # a step size is positive; otherwise the states would explode
        case = replace(case, delta=case.delta.abs() * 0.3, delta_bias=None)
    check(case, mode, times=50 if is_complex else 5)


@property_of_kernels
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(0, 70), st.sampled_from([16, 40, 96])),
    n=st.sampled_from([1, 2, 3, 4, 8, 12, 16, 32, 64]),
    groups=st.sampled_from([1, 1, 2]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    optional=st.booleans(),
    mode=st.builds(Mode, reverse=st.booleans()),
    layout=st.sampled_from([lambda t: t, *LAYOUTS]),
    seed=st.integers(0, 2**31),
)
def test_tiled_shapes(
    sizes: tuple[int, int, int],
    n: int,
    groups: int,
    dtype: torch.dtype,
    optional: bool,
    mode: Mode,
    layout: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    case = make_case((*sizes, n), groups=groups, dtype=dtype, optional=optional)
    moved = {name: layout(getattr(case, name)) for name in NAMES if optional or name != "z"}
    check(replace(case, **moved), mode, times=5)


@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_empty_axes(sizes: tuple[int, int, int, int], constant: str) -> None:
    case = make_case(sizes, constant=constant)
    check(case, Mode())
    if sizes[1] == 0:
        assert torch.equal(native_scan(case, Mode())[1], case.initial_state)


@property_of_kernels
@given(
    lengths=st.lists(st.sampled_from([0, 1, 5, 31, 32, 33, 64]), min_size=1, max_size=4),
    d=st.sampled_from([8, 19]),
    n=st.sampled_from([1, 5, 16]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    mode=st.builds(Mode, reverse=st.booleans()),
)
def test_packed_sequences_do_not_meet(
    lengths: list[int], d: int, n: int, dtype: torch.dtype, mode: Mode
) -> None:
    case = make_case((1, sum(lengths), d, n), dtype=dtype)
    case = replace(case, initial_state=torch.randn(len(lengths), d, n, dtype=case.A.dtype))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    y, state, kept = native_scan(case, mode, offsets)
    kept = kept.view(-1, n, d)
    for k, (first, steps) in enumerate(zip(offsets.tolist(), lengths, strict=False)):
        alone = part(case, slice(first, first + steps))
        alone = replace(alone, initial_state=case.initial_state[k : k + 1])
        y_alone, state_alone, kept_alone = native_scan(alone, mode)
        assert torch.equal(y[:, first : first + steps], y_alone)
        assert torch.equal(state[k : k + 1], state_alone)
        place = first // 32 + k
        kept_alone = kept_alone.view(-1, n, d)
        assert torch.equal(kept[place : place + len(kept_alone)], kept_alone)


@pytest.mark.parametrize("n", [3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nonsense_offsets_reach_nothing_outside(n: int, dtype: torch.dtype) -> None:
    case = replace(make_case((1, 40, 8, n), dtype=dtype), initial_state=None)
    for offsets in ([-5, 70, 3, 2**40], [2**62, -(2**62), 0, 40], [40, 30, 20, 10]):
        y, state, _ = native_scan(case, Mode(), torch.tensor(offsets))
        assert state.shape == (3, 8, n)
        assert y.shape == case.u.shape


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("d", "n"), [(16, 4), (19, 16), (8, 33), (8, 1)])
def test_time_down_the_columns_of_an_image(d: int, n: int, reverse: bool) -> None:
    rows, columns = 9, 5
    case = make_case((2, rows * columns, d, n))
    order = torch.arange(rows * columns).view(rows, columns).T.flatten()
    by_columns = replace(case, **{name: getattr(case, name)[:, order] for name in NAMES})
    y, state, kept = native_scan(case, Mode(reverse=reverse, columns=columns))
    expected = native_scan(by_columns, Mode(reverse=reverse))
    assert torch.equal(y[:, order], expected[0])
    assert torch.equal(state, expected[1])
    assert torch.equal(kept, expected[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_bad_numbers_stay_in_their_channel(bad: float, dtype: torch.dtype) -> None:
    case = make_case((2, 50, 24, 4), dtype=dtype)
    clean = native_scan(case, Mode())[0]
    u = case.u.clone()
    u[1, 20, 7] = bad
    y, state, _ = native_scan(replace(case, u=u), Mode())
    assert not y[1, 20:30, 7].isfinite().any()
    assert not state[1, 7].isfinite().any()
    same = torch.ones_like(y, dtype=torch.bool)
    same[1, 20:, 7] = False
    assert torch.equal(y[same], clean[same])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decays_at_the_ends_of_their_range(dtype: torch.dtype) -> None:
    case = make_case((1, 45, 8, 4), dtype=dtype, optional=False)
    inf, nan = float("inf"), float("nan")
    A = torch.tensor([[0.0, -1, -2, -3], [-inf, -1, 0, -1e30], [nan, -1, -1, -1]], dtype=dtype)
    case = replace(case, A=A[[0, 1, 2, 0, 1, 0, 1, 0]], delta=case.delta.abs())
    case.delta[0, 13, 4] = 0  # times -infinity is NaN, and stays so
    mode = Mode(delta_softplus=False)
    y, state, _ = native_scan(case, mode)
    expected_y, expected_state = expected_scan(case, mode)
    for got, expected in ((y, expected_y), (state, expected_state)):
        assert torch.equal(got.isnan(), expected.isnan())
        assert error(got.nan_to_num(), expected.nan_to_num()) <= 1e-5


def test_slow_states_stay_accurate_over_a_long_sequence() -> None:
    case = make_case((1, 4096, 2, 2), optional=False)
    slow = torch.tensor([[-1e-3, -1e-2], [-1e-4, -1.0]])
    case = replace(case, A=slow, delta=case.delta.abs() * 0.1)
    mode = Mode(delta_softplus=False)
    assert error(native_scan(case, mode)[0], expected_scan(case, mode)[0]) <= 5e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_have_the_same_bits(dtype: torch.dtype) -> None:
    case = make_case((2, 70, 40, 16), dtype=dtype)
    first, second = native_scan(case, Mode()), native_scan(case, Mode())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [0, 8])
@pytest.mark.parametrize("layout", [lambda t: t, LAYOUTS[0]])
def test_aligned_tensors(
    layout: Callable[[Tensor], Tensor], columns: int, dtype: torch.dtype
) -> None:
    """Whole 16 bytes along the channels or along the steps: what is copied asynchronously."""
    case = make_case((2, 48, 32, 16), dtype=dtype)
    moved = replace(case, **{name: layout(getattr(case, name)) for name in NAMES})
    if columns == 0:
        check(moved, Mode(), times=5)
    got = native_scan(moved, Mode(columns=columns))
    expected = native_scan(case, Mode(columns=columns))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
