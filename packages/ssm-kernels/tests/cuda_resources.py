"""What the CUDA kernels cost, read from their machine code for sm_90, and its limits.

    python packages/ssm-kernels/tests/cuda_resources.py             prints figures and faults
    python packages/ssm-kernels/tests/cuda_resources.py --update    writes the table

Stack, spills and atomics are faults under any compiler. Registers, static shared memory and
instructions are compared with data/cuda_resources.json, which holds for one release of nvcc.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cuda_loops
import cuda_sass

ARCHITECTURE = "sm_90"
TABLE = Path(__file__).parent / "data" / "cuda_resources.json"
UPDATE = "python packages/ssm-kernels/tests/cuda_resources.py --update"
SLACK = {"registers": 8.0, "shared": 0.0}  # above the figures of the table
LOOP_SLACK = 1.03  # times the figures of the table
LOCAL_MEMORY = ("LDL", "STL")
ATOMICS = ("ATOM", "ATOMG", "ATOMS", "RED", "REDG", "SUATOM", "SURED")


class UnavailableError(Exception):
    """Something that is needed to look into the kernels is not here; the text says what."""


@dataclass(frozen=True)
class Kernel:
    """The figures of one kernel.

    Attributes:
        stack: bytes of the stack frame of a thread.
        shared: bytes of static shared memory.
        local_accesses, atomics: numbers of such instructions.
        instructions, mufu: of the main loop (mufu: exponentials, logarithms, reciprocals, ...) per
            state step; None for kernels that cuda_loops.py does not list. Not a number: no loop.
    """

    name: str
    registers: int
    stack: int
    shared: int
    local_accesses: int
    atomics: int
    instructions: float | None = None
    mufu: float | None = None

    def faults(self) -> list[str]:
        """What no kernel may have."""
        found = []
        if self.stack:
            found.append(f"a stack frame of {self.stack} bytes")
        if self.local_accesses:
            found.append(f"{self.local_accesses} accesses to local memory (spilled registers)")
        if self.atomics:
            found.append(f"{self.atomics} atomic instructions (results depend on the order)")
        return [f"{self.name}: {', '.join(found)}"] if found else []

    def as_limits(self) -> dict[str, float]:
        limits: dict[str, float] = {"registers": self.registers, "shared": self.shared}
        if self.instructions is not None and self.mufu is not None:
            limits |= {"instructions": round(self.instructions, 2), "mufu": round(self.mufu, 2)}
        return limits


def deviations(kernels: Sequence[Kernel], table: dict[str, dict[str, float]]) -> list[str]:
    """One line per kernel that is above the table or not in it, and per entry without a kernel."""
    found = []
    for kernel in kernels:
        limits, figures = table.get(kernel.name), kernel.as_limits()
        if limits is None:
            found.append(f"{kernel.name}: not in {TABLE.name}; look at its figures, then {UPDATE}")
        elif limits.keys() != figures.keys():
            found.append(f"{kernel.name}: other figures than in {TABLE.name}; {UPDATE}")
        else:
            above = [
                f"{figure:.4g} {what}, limit {limit:.4g}"
                for what, figure in figures.items()
                if not figure <= (limit := limits[what] * LOOP_SLACK + SLACK.get(what, 0.0))
            ]
            found += [f"{kernel.name}: {'; '.join(above)}"] if above else []
    for name in sorted(table.keys() - {kernel.name for kernel in kernels}):
        found.append(f"{name}: in {TABLE.name}, but there is no such kernel; {UPDATE}")
    return found


def extension() -> Path:
    """The file of ssm_kernels._cuda, which is not imported: that needs a driver."""
    spec = importlib.util.find_spec("ssm_kernels._cuda")
    if spec is None or spec.origin is None:
        raise UnavailableError("ssm_kernels._cuda is not built here: no nvcc was found")
    return Path(spec.origin)


def cubins(library: Path, folder: Path) -> list[Path]:
    """Write the code for sm_90 that is in `library` into files in `folder`."""
    run(tool("cuobjdump"), "-xelf", ARCHITECTURE, str(library.resolve()), folder=folder)
    found = sorted(folder.glob(f"*{ARCHITECTURE}*.cubin"))
    if not found:
        raise UnavailableError(f"{library.name} has no code for {ARCHITECTURE}")
    return found


def compiler(files: Iterable[Path]) -> str:
    """The release of nvcc that made the files, such as 13.0."""
    releases = {
        release.decode()
        for path in files
        for release in re.findall(rb"release (\d+\.\d+), V", path.read_bytes())
    }
    return ", ".join(sorted(releases)) or "unknown"


def kernels_of(files: Iterable[Path]) -> list[Kernel]:
    """The kernels by name; of several with the same name the larger figures."""
    found: dict[str, Kernel] = {}
    for path in files:
        resources = run(tool("cuobjdump"), "--dump-resource-usage", str(path))
        numbers = dict(re.findall(r"Function (\S+):\s+(REG:.*)", resources))
        code = dict(cuda_sass.functions(run(tool("cuobjdump"), "-sass", str(path))))
        names = demangled(list(code))
        for mangled, instructions in code.items():
            kernel = measured(names[mangled], numbers[mangled], instructions)
            before = found.get(kernel.name, kernel)
            found[kernel.name] = kernel if before == kernel else larger(before, kernel)
    return sorted(found.values(), key=lambda kernel: kernel.name)


def measured(name: str, resources: str, code: cuda_sass.Code) -> Kernel:
    usage = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", resources)}
    instructions = mufu = None
    steps = cuda_loops.state_steps(name)
    if steps is not None:
        loop = code.main_loop()
        instructions = len(loop.body) / steps if loop else float("nan")
        mufu = loop.count("MUFU") / steps if loop else float("nan")
    return Kernel(
        name,
        usage["REG"],
        max(usage["STACK"], usage["LOCAL"]),
        usage["SHARED"],
        code.count(*LOCAL_MEMORY),
        code.count(*ATOMICS),
        instructions,
        mufu,
    )


def larger(one: Kernel, other: Kernel) -> Kernel:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return Kernel(*(a if a is None else max(a, b) for a, b in pairs))


def demangled(names: list[str]) -> dict[str, str]:
    """Mangled name -> name and template arguments, without namespaces and parameters."""
    text = run(tool("c++filt"), stdin="\n".join(names))
    return {name: short(full) for name, full in zip(names, text.splitlines(), strict=True)}


def short(full: str) -> str:
    for unwanted in ("ssm::cuda::", "ssm::", "(anonymous namespace)::", "<unnamed>::"):
        full = full.replace(unwanted, "")
    if full.endswith(")"):
        depth, start = 0, len(full)
        while start == len(full) or depth:
            start -= 1
            depth += (full[start] == ")") - (full[start] == "(")
        full = full[:start]
    return full.removeprefix("void ").replace("> >", ">>")


def tool(name: str) -> str:
    """Path of a program: of CUDA's own tools, or of those that come with Triton."""
    places = [shutil.which(name)]
    places += [str(path) for path in Path("/usr/local/cuda/bin").glob(name)]
    triton = importlib.util.find_spec("triton")
    for folder in triton.submodule_search_locations or () if triton else ():
        places += [str(path) for path in Path(folder).glob(f"backends/nvidia/bin/{name}")]
    found = next((place for place in places if place), None)
    if found is None:
        raise UnavailableError(f"no {name}: neither on the PATH nor in the package triton")
    return found


def run(*command: str, folder: Path | None = None, stdin: str | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, input=stdin
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def read_table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def write_table(release: str, kernels: Iterable[Kernel]) -> None:
    """One line per kernel, so that a change shows which."""
    lines = [f"  {json.dumps(k.name)}: {json.dumps(k.as_limits())}" for k in kernels]
    content = f'{{"nvcc": "{release}", "kernels": {{\n' + ",\n".join(lines) + "\n}}\n"
    TABLE.write_text(content, encoding="utf-8")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        files = cubins(extension(), Path(folder))
        release, kernels = compiler(files), kernels_of(files)
    for kernel in kernels:
        print(f"{kernel.name}  {kernel.as_limits()}")
    wrong = [fault for kernel in kernels for fault in kernel.faults()]
    if "--update" in sys.argv[1:]:
        write_table(release, kernels)
        print(f"{len(kernels)} kernels, nvcc {release}: {TABLE}")
    else:
        wrong += deviations(kernels, read_table()["kernels"])
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
