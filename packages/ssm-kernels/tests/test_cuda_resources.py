"""Gates for the CUDA kernels that need no GPU: what the compiler made of them.

No kernel may have a stack frame, spill registers or use atomics. Registers, static shared memory
and, for the main loops, instructions per state step are in data/cuda_resources.json.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cuda_loops
import cuda_resources
import cuda_sass
import pytest
from cuda_resources import Kernel, UnavailableError, deviations, kernels_of

Built = tuple[str, list[Kernel]]

STACK_AND_ATOMICS = """
__global__ void good(float* x) { x[threadIdx.x] = 1.0f; }

__global__ void indexes_a_local_array(float* x, const int* index) {
  float values[32];
  for (int i = 0; i < 32; ++i) values[i] = x[i * blockDim.x + threadIdx.x];
  for (int i = 0; i < 32; ++i) values[index[i]] += values[index[i + 1]];
  for (int i = 0; i < 32; ++i) x[i * blockDim.x + threadIdx.x] = values[i];
}

namespace {
template <class T>
__global__ void adds_atomically(T* sum, const T* x) { atomicAdd(sum, x[threadIdx.x]); }
template __global__ void adds_atomically<float>(float*, const float*);
}

template <int n>
__global__ void recurrence(float* x, int steps) {
  float h[n] = {};
#pragma unroll 1
  for (int l = 0; l < steps; ++l) {
    const float u = x[l * blockDim.x + threadIdx.x];
#pragma unroll
    for (int i = 0; i < n; ++i) h[i] = h[i] * exp2f(u * i) + u;
    float y = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) y += h[i];
    x[l * blockDim.x + threadIdx.x] = y;
  }
}
template __global__ void recurrence<16>(float*, int);
"""

MANY_REGISTERS = """
__global__ void keeps_64_values(float* x, int steps) {
  float h[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) h[i] = x[i * 32 + threadIdx.x];
#pragma unroll 1
  for (int l = 0; l < steps; ++l) {
#pragma unroll
    for (int i = 0; i < 64; ++i) h[i] = h[i] * h[(i + 17) % 64] + x[l];
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 32 + threadIdx.x] = h[i];
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The release of nvcc and the kernels of the extension module."""
    try:
        files = cuda_resources.cubins(cuda_resources.extension(), tmp_path_factory.mktemp("cubins"))
        return cuda_resources.compiler(files), kernels_of(files)
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def table() -> dict[str, dict[str, float]]:
    return dict(cuda_resources.read_table()["kernels"])


def compiled(folder: Path, source: str, *flags: str) -> dict[str, Kernel]:
    """Kernels of a source by name."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH")
    file, cubin = folder / "kernels.cu", folder / "kernels.cubin"
    file.write_text(source)
    cuda_resources.run(nvcc, "-arch=sm_90", "-cubin", *flags, "-o", str(cubin), str(file))
    try:
        return {kernel.name: kernel for kernel in kernels_of([cubin])}
    except UnavailableError as reason:
        pytest.skip(str(reason))


def test_no_kernel_has_a_stack_or_spills_or_atomics(built: Built) -> None:
    release, kernels = built
    assert release != "unknown"
    assert kernels
    faults = [fault for kernel in kernels for fault in kernel.faults()]
    assert not faults, "\n" + "\n".join(faults)


def test_kernels_stay_within_the_table(built: Built, table: dict[str, dict[str, float]]) -> None:
    release, kernels = built
    if release != (expected := cuda_resources.read_table()["nvcc"]):
        pytest.skip(f"the table is for nvcc {expected}, these kernels were built with {release}")
    wrong = deviations(kernels, table)
    assert not wrong, "\n" + "\n".join(wrong)


def test_a_stack_and_atomics_are_faults(tmp_path: Path) -> None:
    kernels = compiled(tmp_path, STACK_AND_ATOMICS)
    assert kernels["good"].faults() == []
    assert kernels["recurrence<16>"].faults() == []
    (stack,) = kernels["indexes_a_local_array"].faults()
    assert stack.startswith("indexes_a_local_array: a stack frame of 128 bytes, ")
    assert "local memory" in stack
    (atomic,) = kernels["adds_atomically<float>"].faults()
    assert atomic.startswith("adds_atomically<float>: 1 atomic instructions")


def test_a_spill_is_a_fault(tmp_path: Path) -> None:
    assert compiled(tmp_path, MANY_REGISTERS)["keeps_64_values"].faults() == []
    (spill,) = compiled(tmp_path, MANY_REGISTERS, "-maxrregcount=32")["keeps_64_values"].faults()
    assert spill.startswith("keeps_64_values: a stack frame of ")
    assert "spilled registers" in spill


def test_instructions_per_state_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cuda_loops.STATE_STEPS, "recurrence", lambda arguments: int(arguments[0]))
    kernel = compiled(tmp_path, STACK_AND_ATOMICS)["recurrence<16>"]
    assert kernel.mufu == 1
    assert kernel.instructions is not None
    assert 3 < kernel.instructions < 9
    limits = kernel.as_limits()
    assert deviations([kernel], {kernel.name: limits}) == []
    limits["instructions"] *= 0.9
    (wrong,) = deviations([kernel], {kernel.name: limits})
    assert wrong.startswith("recurrence<16>: ")
    assert " instructions, limit " in wrong


def test_a_listed_kernel_without_a_loop_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cuda_loops.STATE_STEPS, "good", lambda arguments: 1)
    kernel = compiled(tmp_path, STACK_AND_ATOMICS)["good"]
    entry = {"registers": 99.0, "shared": 0.0, "instructions": 99.0, "mufu": 99.0}
    (wrong,) = deviations([kernel], {"good": entry})
    assert "nan instructions" in wrong


def test_deviations_from_the_table() -> None:
    kernel = Kernel("scan<16>", 64, 0, 0, 0, 0)
    entry: dict[str, float] = {"registers": 64, "shared": 0}
    assert deviations([kernel], {"scan<16>": entry}) == []
    assert deviations([dataclasses.replace(kernel, registers=72)], {"scan<16>": entry}) == []
    (more,) = deviations([dataclasses.replace(kernel, registers=80)], {"scan<16>": entry})
    assert more.startswith("scan<16>: 80 registers, limit 7")
    (shared,) = deviations([dataclasses.replace(kernel, shared=4)], {"scan<16>": entry})
    assert shared == "scan<16>: 4 shared, limit 0"
    (unknown,) = deviations([kernel], {})
    assert unknown.startswith("scan<16>: not in ")
    assert unknown.endswith(cuda_resources.UPDATE)
    (stale,) = deviations([], {"scan<16>": entry})
    assert stale.startswith("scan<16>: in cuda_resources.json, but there is no such kernel")
    (figures,) = deviations(
        [dataclasses.replace(kernel, instructions=7.0, mufu=1.0)], {"scan<16>": entry}
    )
    assert "other figures" in figures


def test_the_table_is_written_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_resources, "TABLE", tmp_path / "table.json")
    kernels = [Kernel("a<1>", 8, 0, 16, 0, 0), Kernel("b", 9, 0, 0, 0, 0, 7.001, 1.0)]
    cuda_resources.write_table("13.0", kernels)
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "nvcc": "13.0",
        "kernels": {
            "a<1>": {"registers": 8, "shared": 16},
            "b": {"registers": 9, "shared": 0, "instructions": 7.0, "mufu": 1.0},
        },
    }
    assert deviations(kernels, cuda_resources.read_table()["kernels"]) == []


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ("ssm::cuda::(anonymous namespace)::do_nothing(int)", "do_nothing"),
        ("void ssm::cuda::scan<16, (ssm::Kind)1>(ssm::P<2>, void (*)(int))", "scan<16, (Kind)1>"),
        ("plain", "plain"),
    ],
)
def test_short_names(full: str, expected: str) -> None:
    assert cuda_resources.short(full) == expected


def test_template_arguments() -> None:
    name, arguments = cuda_loops.template_arguments("scan<16, (Kind)1, pair<1, 2>>")
    assert (name, arguments) == ("scan", ["16", "(Kind)1", "pair<1, 2>"])
    assert cuda_loops.template_arguments("scan") == ("scan", [])


def test_state_steps_of_an_iteration() -> None:
    assert cuda_loops.state_steps("scan_tiled<TiledShape<8, 4>>") == 32
    assert cuda_loops.state_steps("scan_tiled<TiledShape<1, 1>>") is None
    assert cuda_loops.state_steps("do_nothing") is None


def test_loops_of_machine_code() -> None:
    """A loop in a loop, a slow path that returns into the middle, a detour."""
    text = """
        Function : nested
        /*0000*/                   MOV R1, RZ ;       /* 0x1 */
        /*0010*/                   MUFU.EX2 R2, R1 ;  /* 0x1 */
        /*0020*/                   FADD R2, R2, R1 ;  /* 0x1 */
        /*0030*/               @P2 BRA 0x0090 ;       /* 0x1 */
        /*0040*/                   FFMA R2, R2, R1, R3 ;
        /*0050*/              @!P0 BRA 0x20 ;
        /*0060*/                   BRA.DIV UR4, 0xb0 ;
        /*0070*/                   BRA P1, 0x10 ;
        /*0080*/                   EXIT ;
        /*0090*/                   FMUL R2, R2, R2 ;
        /*00a0*/                   BRA 0x40 ;
        /*00b0*/                   SHFL R1, R1 ;
        /*00c0*/                   BRA 0x70 ;
        /*00d0*/                   BRA 0xd0;
        /*00e0*/                   NOP;
    """
    ((name, code),) = cuda_sass.functions(text)
    assert name == "nested"
    outer, inner = sorted(code.loops(), key=lambda loop: -len(loop.body))
    assert [x.address for x in inner.body] == [0x20, 0x30, 0x40, 0x50, 0x90, 0xA0]
    assert [x.address for x in outer.own] == [0x10, 0x60, 0x70]
    assert (outer.count("MUFU"), outer.weight, inner.weight) == (1, 1, 3)
    assert code.main_loop() == inner
