"""What the compiled kernels stand on: instruction sets, threads, storage types, functions."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from native_scan_cases import Case, Mode, make_case, native_gradients, native_scan

from ssm_kernels import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")
ISAS = native.available_isas() if native.AVAILABLE else []


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_build_info_says_what_runs() -> None:
    info = native.build_info()
    assert info["isa"] in info["isas_available"]
    assert set(info["isas_available"]) <= set(info["isas_compiled"])
    assert info["isas_available"][0] == "baseline"
    assert info["parallel"] in ("gomp", "own")
    assert str(info["compiler"]).startswith(("gcc", "clang"))


@pytest.mark.parametrize("name", ISAS)
def test_environment_chooses_the_instruction_set(name: str) -> None:
    # the library by itself: PyTorch, which it does not need, would take seconds to import
    code = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_native", {native.extension._native.__file__!r})
library = module_from_spec(spec)
spec.loader.exec_module(library)
print(library.isa())
"""
    done = run_python(code, SSM_KERNELS_ISA=name)
    assert done.stdout.split() == [name], done.stderr


def test_impossible_instruction_set_is_named() -> None:
    code = "from ssm_kernels import native; native.isa()"
    done = run_python(code, SSM_KERNELS_ISA="sse9")
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "'sse9' is not available" in message
    assert "baseline" in message
    with pytest.raises(RuntimeError, match="choose one of baseline"):
        native.set_isa("sse9")


def test_threads_come_from_the_runtime_torch_has_loaded() -> None:
    code = (
        "import ctypes; from ssm_kernels import native\n"
        "loaded = hasattr(ctypes.CDLL(None), 'GOMP_parallel')\n"
        "print(native.build_info()['parallel'] == ('gomp' if loaded else 'own'))"
    )
    assert run_python(code).stdout.split() == ["True"]


def test_own_pool_gives_the_same_bits() -> None:
    case = make_case((4, 40, 70, 4))
    grad_y = torch.randn(case.u.shape)
    before = torch.get_num_threads()
    results = []
    try:
        torch.set_num_threads(3)
        for forced in (False, True, True):
            native.extension._native.force_own_pool(forced)
            gradients = native_gradients(case, Mode(), grad_y, None)
            results.append([native_scan(case, Mode())[0], *gradients.values()])
    finally:
        native.extension._native.force_own_pool(False)
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("forced", [False, True])
def test_kernels_run_in_a_forked_child(forced: bool) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch
from native_scan_cases import Mode, make_case, native_scan
from ssm_kernels import native
native.extension._native.force_own_pool({forced})
torch.set_num_threads(2)
case = make_case((4, 40, 70, 4))
y = native_scan(case, Mode())[0]
child = os.fork()
if child == 0:
    same = (native_scan(case, Mode())[0].numpy() == y.numpy()).all()
    os._exit(0 if same else 7)
print(os.waitpid(child, 0)[1])
"""
    done = run_python(code)
    assert done.stdout.split() == ["0"], done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize("forced", [False, True])
def test_an_error_in_a_task_reaches_the_caller(forced: bool) -> None:
    # Scratch for 2^22 states does not fit the memory that is left; the next call works again.
    code = f"""
import os, resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch
from native_scan_cases import Mode, make_case, native_scan
from ssm_kernels import native
native.extension._native.force_own_pool({forced})
torch.set_num_threads(2)
small = make_case((4, 40, 70, 4))
y = native_scan(small, Mode())[0]
case = make_case((2, 0, 1, 2**22), constant="BC", optional=False)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
try:
    native_scan(case, Mode())
except MemoryError:
    print(torch.equal(native_scan(small, Mode())[0], y))
"""
    done = run_python(code)
    assert done.stdout.split() == ["True"], done.stderr


def pointwise(
    x: torch.Tensor, *, D: torch.Tensor | None = None, z: torch.Tensor | None = None
) -> Case:
    """One row per number, no states: y = D x, gated by z."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rows = x.reshape(1, -1, 1)
    nothing = rows.new_zeros(1, rows.shape[1], 1, 0)
    return Case(
        u=rows,
        delta=torch.zeros_like(rows),
        A=torch.zeros(1, 0, dtype=wide),
        B=nothing,
        C=nothing,
        D=torch.ones(1, dtype=wide) if D is None else D,
        z=None if z is None else z.reshape(1, -1, 1),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lanes", [1, 16])
def test_every_16_bit_number_is_read_and_written_exactly(
    isa: str, dtype: torch.dtype, lanes: int
) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    case = pointwise(numbers)
    case.u = case.u.reshape(1, -1, lanes)
    case.delta = torch.zeros_like(case.u)
    case.A, case.D = torch.zeros(lanes, 0), torch.ones(lanes)
    case.B = case.C = case.u.new_zeros(1, case.u.shape[1], 1, 0)
    y = native_scan(case, Mode())[0].flatten()
    nan = numbers.isnan()
    assert torch.equal(y.isnan(), nan)
    assert torch.equal(y[~nan].view(torch.int16), numbers[~nan].view(torch.int16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [1.001, 3.0, 1 / 3, 2.0**-10, 1.0 + 2.0**-9])
def test_results_are_rounded_to_nearest_even(isa: str, dtype: torch.dtype, factor: float) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()]
    D = torch.tensor([factor], dtype=torch.float32)
    y = native_scan(pointwise(numbers, D=D), Mode())[0].flatten()
    assert torch.equal(y, (numbers.float() * D).to(dtype))


def decays(x: torch.Tensor) -> torch.Tensor:
    """exp(x) as the scan computes it: the state after one step of size 1 from 1, with A = x."""
    one = torch.ones(1, 1, len(x), dtype=x.dtype)
    B = torch.zeros(len(x), 1, dtype=x.dtype)
    case = Case(one, one, x.reshape(-1, 1), B, B, initial_state=one.reshape(1, -1, 1))
    return native_scan(case, Mode(delta_softplus=False))[1].flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponential_is_accurate(isa: str, dtype: torch.dtype) -> None:
    single = dtype == torch.float32
    largest = 86.9 if single else 707.0
    x = torch.linspace(-largest, largest, 20001, dtype=dtype)
    ulp = torch.finfo(dtype).eps
    # x log2(e) is rounded before the power of two is taken, hence the term that grows with x.
    allowed = 3 * ulp + x.abs().double() * 1.2 * ulp
    expected = x.double().exp()
    assert ((decays(x).double() - expected).abs() <= allowed * expected).all()
    assert decays(torch.zeros(1, dtype=dtype)).item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponential_leaves_the_range_gracefully(isa: str, dtype: torch.dtype) -> None:
    limit = math.log(torch.finfo(dtype).max)
    tiny = torch.finfo(dtype).tiny
    over = torch.tensor([limit * 1.001, 1e4, 1e30, math.inf], dtype=dtype)
    under = torch.tensor([-limit * 1.001, -1e4, -1e30, -math.inf], dtype=dtype)
    near = torch.linspace(-limit * 1.2, -limit * 0.97, 999, dtype=dtype)
    assert torch.equal(decays(over), torch.full_like(over, math.inf))
    # just below the range of normal numbers: 0, or what is left of the number there
    assert 0 <= float(decays(under)[0]) <= tiny
    assert torch.equal(decays(under)[1:], torch.zeros(3, dtype=dtype))
    assert ((decays(near) - near.exp()).abs() <= 2 * tiny + 1e-4 * near.exp()).all()
    assert decays(torch.tensor([math.nan, 1.0], dtype=dtype)).isnan().tolist() == [True, False]
    payload = torch.tensor([0x7FC00001, 0x7F800123], dtype=torch.int32).view(torch.float32)
    assert decays(payload.to(dtype)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_and_its_slope_are_accurate(isa: str, dtype: torch.dtype) -> None:
    # One state, A = 0: the state after one step is softplus(x) * u * B = softplus(x).
    x = torch.cat([torch.linspace(-80, 40, 12001), torch.tensor([-50.0, 20.0, 20.001])]).to(dtype)
    rows = x.reshape(-1, 1, 1)
    one = torch.ones(1, 1, dtype=dtype)
    case = Case(torch.ones_like(rows), rows, 0 * one, one, one)
    got = native_scan(case, Mode())[1].flatten().double()
    expected = F.softplus(x.double())
    ulp = torch.finfo(dtype).eps
    assert ((got - expected).abs() <= 4 * ulp * expected).all()
    slope = native_gradients(case, Mode(), torch.ones_like(rows), None)["delta"].flatten().double()
    expected = torch.where(x > 20, 1.0, x.double().sigmoid())
    assert ((slope - expected).abs() <= 4 * ulp * expected).all()
    special = torch.tensor([-math.inf, math.inf, math.nan], dtype=dtype).reshape(-1, 1, 1)
    case = Case(torch.ones_like(special), special, one - 1, one, one)
    low, high, nan = native_scan(case, Mode())[1].flatten().tolist()
    assert low == 0.0
    assert not math.isfinite(high)
    assert math.isnan(nan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gate_and_its_slope_are_accurate(isa: str, dtype: torch.dtype) -> None:
    z = torch.linspace(-80, 80, 10001, dtype=dtype)
    case = pointwise(torch.ones_like(z), z=z)
    wide = z.double()
    expected = F.silu(wide)
    slope = wide.sigmoid() * (1 + wide * (-wide).sigmoid())
    ulp = torch.finfo(dtype).eps
    got = native_scan(case, Mode())[0].flatten().double()
    assert ((got - expected).abs() <= 5 * ulp * expected.abs()).all()
    got = native_gradients(case, Mode(), torch.ones_like(case.u), None)["z"].flatten().double()
    assert ((got - slope).abs() <= 5 * ulp * slope.abs().clamp_min(1)).all()
