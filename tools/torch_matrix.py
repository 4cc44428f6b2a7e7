"""Try one wheel of ssm-kernels under several versions of torch: `python tools/torch_matrix.py`.

The wheel (`--wheel`, otherwise one is built) is installed beside each torch in an environment of
its own, one after the other, and the tests of the kernels run there; the table goes to standard
output. An environment takes up to 5.5 GB, since torch brings its CUDA libraries along; it is
removed at once unless `--environments` names a folder to keep it in. The version of Python is that
of the running one. A published wheel lacks the simulator of CUDA, whose tests are then skipped; one
built here by the Python of `make setup` has it, and takes its objects from there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "packages" / "ssm-kernels"
VERSIONS = ("2.6.0", "2.11.0", "2.15.0")  # the oldest supported, one between, the newest
QUICK = (
    "test_native.py",
    "test_library.py",
    "test_library_vmap.py",
    "test_diagonal_scan_traced.py",
)
# Modules are compiled when first imported (--no-compile), and must not be compiled every time.
CLEAN = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}
TESTING = ("hypothesis", "numpy", "pybind11", "pytest", "pytest-timeout", "pytest-xdist")
# What tests read files with and compare with.
TOOLS = (*TESTING, "safetensors", "transformers")
# The inductor of PyTorch 2.6 asks for it; others confine its version, so that it has no pin.
UNPINNED = ("setuptools",)


class StepError(Exception):
    """A step could not be carried out; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """What became of the tests under one torch."""

    torch: str
    python: str
    passed: int
    failed: int
    skipped: int
    seconds: float

    @property
    def good(self) -> bool:
        return self.failed == 0 and self.passed > 0


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise StepError(f"{tail}\nthis failed: {' '.join(map(str, command))}")
    return done.stdout


def pip(*arguments: str | Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def build_wheel(folder: Path) -> Path:
    """A wheel of the working tree, from the objects of `make setup` where this is its Python."""
    objects = Path(sys.prefix, "build-kernels")
    reused = ("--no-build-isolation", f"--config-settings=build-dir={objects}")
    pip("wheel", "--no-deps", "--wheel-dir", folder, *(reused if objects.is_dir() else ()), KERNELS)
    return next(folder.glob("*.whl"))


def pins() -> list[str]:
    """The test tools in the versions that everything else is tested with."""
    lines = (ROOT / "tools" / "constraints.txt").read_text().splitlines()
    return [line for line in lines if re.split("==", line)[0] in TOOLS]


@contextmanager
def environment(version: str, kept: Path | None) -> Iterator[Path]:
    """The Python of an environment with this torch and the test tools; made unless it stands."""
    folder = Path(tempfile.mkdtemp()) if kept is None else kept / f"torch-{version}"
    python = folder / "bin" / "python"
    try:
        if not (folder / "complete").exists():
            run(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
            pins_file = folder / "pins.txt"
            pins_file.write_text("\n".join(pins()))
            wanted = (f"torch=={version}", *TOOLS, *UNPINNED)
            pip("--python", python, "install", "--no-compile", "-c", pins_file, *wanted)
            (folder / "complete").touch()
        yield python
    finally:
        if kept is None:
            shutil.rmtree(folder)


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report."""
    suite = next(ET.parse(report).iter("testsuite"))
    total, failures, errors, skipped = (
        int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
    )
    return total - failures - errors - skipped, failures + errors, skipped


def try_wheel(python: Path, wheel: Path, tests: Sequence[Path], processes: str) -> Row:
    """Install the wheel beside the torch of `python` and run the tests."""
    reinstall = ("install", "--no-deps", "--no-index", "--force-reinstall", wheel)
    pip("--python", python, *reinstall)
    where = "import sys, torch, ssm_kernels; print(torch.__version__, sys.version.split()[0])"
    torch, interpreter = run(python, "-c", where, **CLEAN).split()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ("-q", "-n", processes, f"--junitxml={report}")
        started = time.monotonic()
        done = subprocess.run(
            [python, "-m", "pytest", *options, *tests],
            cwd=ROOT,
            # the compiler's helper processes take longer to start than the tests to compile
            env={**os.environ, **CLEAN, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            check=False,
        )
        seconds = time.monotonic() - started
        if not report.exists():
            raise StepError(f"pytest ended with code {done.returncode} and without a report")
        passed, failed, skipped = counts(report)
    if done.returncode and not failed:
        raise StepError(f"pytest ended with code {done.returncode} although no test failed")
    return Row(torch, interpreter, passed, failed, skipped, round(seconds, 1))


def table(wheel: str, rows: Sequence[Row]) -> str:
    lines = [
        f"`{wheel}`:",
        "",
        "| torch | Python | passed | failed | skipped | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.torch, row.python, row.passed, row.failed, row.skipped, f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", nargs="+", default=VERSIONS, metavar="VERSION")
    parser.add_argument("--wheel", type=Path, help="default: built from the working tree")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--tests", nargs="+", type=Path, help="files; default: all of the kernels")
    chosen.add_argument("--quick", action="store_true", help=f"{' '.join(QUICK)} only")
    parser.add_argument("--processes", default="auto", help="as -n of pytest-xdist")
    parser.add_argument("--environments", type=Path, help="folder that keeps the environments")
    parser.add_argument("--json", type=Path, help="file for the table as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    tests = options.tests or [KERNELS / "tests"]
    if options.quick:
        tests = [KERNELS / "tests" / name for name in QUICK]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            wheel = options.wheel or build_wheel(Path(folder))
            for version in options.versions:
                print(f"==> torch {version}", flush=True)
                with environment(version, options.environments) as python:
                    rows.append(try_wheel(python, wheel, tests, options.processes))
        except StepError as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
    print(table(wheel.name, rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
