"""How long wheels take to install and to import: `python tools/measure_install.py WHEELS`.

WHEELS is what tools/build_wheels.sh wrote. Everything happens in an environment that has torch and
the test tools and none of our packages; making it is not part of the times, nor is downloading:
what the packages need beside torch is fetched first, so that the times do not depend on the
network. The table goes to standard output. Imports are timed in fresh processes in which torch is
imported already: the median, and that of the processor time, which other programs lengthen less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_matrix import CLEAN, VERSIONS, StepError, environment, pip, run

PACKAGES = ("ssm-kernels", "ssm-core", "ssm-vision", "ssm-text", "ssm-prune")
TIMED_IMPORT = """
import json, sys, time
import torch
wall, processor = time.perf_counter(), time.process_time()
__import__(sys.argv[1])
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""


def fetch_dependencies(python: Path, wheels: Path, folder: Path) -> int:
    """Download what `python` lacks for our packages into `folder`; return how many that are."""
    report = folder / "report.json"
    find = ("--find-links", wheels)
    dry = ("install", "--dry-run", "--quiet", "--report", report, *find)
    pip("--python", python, *dry, *PACKAGES)
    missing = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    pins = [f"{m['name']}=={m['version']}" for m in missing if m["name"] not in PACKAGES]
    if pins:
        pip("download", "--no-deps", "--dest", folder, *pins)
    return len(pins)


def times_to_install(
    python: Path, folders: Sequence[Path], packages: Sequence[str]
) -> tuple[float, float]:
    """Wall and processor seconds of a `pip install` from local files, byte code compiled."""
    links = [word for folder in folders for word in ("--find-links", str(folder))]
    before, started = os.times(), time.monotonic()
    pip("--python", python, "install", "--no-index", *links, *packages)
    after, wall = os.times(), time.monotonic() - started
    used = after.children_user - before.children_user
    return wall, used + after.children_system - before.children_system


def remove_ours(python: Path) -> None:
    pip("--python", python, "uninstall", "--quiet", "--yes", *PACKAGES)


def install_rows(python: Path, wheels: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """What was installed, and its times."""
    remove_ours(python)
    alone = times_to_install(python, [wheels], PACKAGES[:1])
    yield "ssm-kernels, torch is there", alone
    remove_ours(python)
    with tempfile.TemporaryDirectory() as name:
        needed = Path(name)
        count = fetch_dependencies(python, wheels, needed)
        all_of_it = times_to_install(python, [wheels, needed], PACKAGES)
    yield f"all five and {count} packages they need, torch is there", all_of_it
    remove_ours(python)
    ours = times_to_install(python, [wheels], PACKAGES)
    yield "all five, what they need is there", ours


def import_times(python: Path, module: str, processes: int) -> tuple[float, float]:
    """Median wall and processor seconds of an import after torch's, in processes of their own."""
    outside = Path(tempfile.gettempdir())
    call = ("-c", f"import os; os.chdir({str(outside)!r})\n{TIMED_IMPORT}", module)
    run(python, *call, **CLEAN)  # files into the page cache
    times = [json.loads(run(python, *call, **CLEAN)) for _ in range(processes)]
    wall, processor = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(processor)


def report(python: Path, wheels: Path, processes: int) -> Iterator[str]:
    """The lines of the tables, each as soon as it is known."""
    yield from ("| installed | seconds | seconds of the processor |", "|---|---|---|")
    for what, (wall, processor) in install_rows(python, wheels):
        yield f"| {what} | {wall:.1f} | {processor:.1f} |"
    yield from ("", "| file | MB |", "|---|---|")
    for path in sorted([*wheels.glob("*.whl"), *wheels.glob("*.tar.gz")]):
        yield f"| {path.name} | {path.stat().st_size / 1e6:.2f} |"
    yield from ("", "| import, after torch | ms | ms of the processor |", "|---|---|---|")
    for package in PACKAGES:
        module = package.replace("-", "_")
        wall, processor = import_times(python, module, processes)
        yield f"| {module} | {wall * 1e3:.0f} | {processor * 1e3:.0f} |"


def surroundings(python: Path) -> str:
    """The machine, how busy it is, and the versions that matter."""
    from ssm_core.train.folder import processor

    torch = run(python, "-c", "import torch; print(torch.__version__)").strip()
    pip_version = pip("--version").split()[1]
    return (
        f"- machine: {processor()}, {platform.system()} {platform.machine()}, {os.cpu_count()} "
        f"cores; {os.getloadavg()[0]:.1f} processes were running or waiting for a core\n"
        f"- versions: Python {platform.python_version()}, torch {torch}, pip {pip_version}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--torch", default=VERSIONS[-1], metavar="VERSION")
    parser.add_argument("--environments", type=Path, help="folder that keeps the environment")
    parser.add_argument("--processes", type=int, default=11, help="imports of which the median is")
    options = parser.parse_args(arguments)
    try:
        with environment(options.torch, options.environments) as python:
            for line in report(python, options.wheels, options.processes):
                print(line, flush=True)
            print(f"\n{surroundings(python)}")
    except StepError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
