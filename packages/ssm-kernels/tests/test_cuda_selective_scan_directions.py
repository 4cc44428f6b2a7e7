"""The CUDA scans of several directions, forward, simulated on the host, against float64 loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_scan_cases import Case, Mode, compute_type, error, expected_scan
from torch import Tensor

from ssm_kernels import native
from ssm_kernels.selective_scan_directions_autograd import DIRECTIONS

pytestmark = pytest.mark.usefixtures("simulated")


def columns_first(t: Tensor, columns: int) -> Tensor:
    return t.unflatten(1, (-1, columns)).transpose(1, 2).flatten(1, 2)


def expected_sum(scans: list[tuple], names: list[str], columns: int) -> Tensor:
    """Each direction by itself in float64; the gate is applied to the sum."""
    total = torch.zeros(())
    for tensors, name in zip(scans, names, strict=True):
        way = DIRECTIONS[name]
        case = Case(*tensors)
        case.z = None
        if way.by_columns:
            for field in ("u", "delta", "B", "C"):
                setattr(case, field, columns_first(getattr(case, field), columns))
        y = expected_scan(case, Mode(reverse=way.reverse))[0]
        rows = y.shape[1] // columns
        total = total + (columns_first(y, rows) if way.by_columns else y)
    z = scans[-1][6]
    return total if z is None else total * torch.nn.functional.silu(z.double())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    image=st.tuples(st.sampled_from([1, 3, 7]), st.sampled_from([1, 5, 8])),
    d=st.sampled_from([3, 8, 24]),
    n=st.sampled_from([1, 2, 16]),
    names=st.lists(st.sampled_from(sorted(DIRECTIONS)), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    gate=st.booleans(),
    skip=st.booleans(),
    keep=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_sum_of_any_directions(
    image: tuple[int, int],
    d: int,
    n: int,
    names: list[str],
    dtype: torch.dtype,
    gate: bool,
    skip: bool,
    keep: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, l, k, wide = 2, image[0] * image[1], len(names), compute_type(dtype)
    u, z = torch.randn(b, l, d).to(dtype), torch.randn(b, l, d).to(dtype)
    delta = (torch.randn(b, l, k, d) - 1).to(dtype)
    B, C = (torch.randn(b, l, k, 1, n).to(dtype) for _ in "BC")
    A, D = -torch.rand(k, d, n, dtype=wide) * n, torch.randn(k, d, dtype=wide)
    bias = torch.randn(k, d, dtype=wide)

    def scan(i: int) -> tuple:
        tensors = (u, delta[:, :, i], A[i], B[:, :, i], C[:, :, i])
        return (*tensors, D[i] if skip else None, z if gate and i == k - 1 else None, bias[i], None)

    scans = [scan(i) for i in range(k)]
    ways = [DIRECTIONS[name] for name in names]
    modes = [native.ScanMode(True, w.reverse, image[1] if w.by_columns else 0) for w in ways]
    y = torch.full((b, l, d), float("nan"), dtype=wide)
    shape = (k, *native.checkpoint_shape(b, l, d, n, None))
    checkpoints = torch.full(shape, float("nan"), dtype=wide) if keep else None
    native.selective_scan_directions_forward(scans, modes, into=y, checkpoints=checkpoints)
    assert error(y, expected_sum(scans, names, image[1])) <= (
        1e-13 if dtype is torch.float64 else 1e-5
    )
    for i in range(k if keep else 0):
        alone = native.selective_scan_forward(*scans[i], mode=modes[i], save_for_backward=True)[2]
        assert torch.equal(checkpoints[i].flatten(), alone)
