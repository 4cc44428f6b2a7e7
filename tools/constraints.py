"""Make constraints.txt anew: `python tools/constraints.py PYTHON [PYTHON ...]` (takes minutes).

The newest versions of everything the packages and the developer tools need are installed for the
first interpreter, in a fresh environment, and what stands there afterwards is written down. For
the other interpreters the same requirements are resolved without installing; where versions
differ the lines carry markers. Name one interpreter per supported Python version, the one you
test with first. Runs on Python 3.11 or newer.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tools" / "constraints.txt"
HEADER = """\
# Versions the packages and the developer tools are known to work with; `make setup` installs these.
# Made by tools/constraints.py, not by hand. CUDA libraries are not listed: torch pins its own.
"""
UNPINNED = re.compile(r"(nvidia|cuda|triton|ssm)(-|$)")
Versions = dict[str, str]  # distribution -> version


def requirements() -> list[str]:
    """Every third-party requirement in the workspace, extras and build systems included."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {"pip"}
    for group in workspace["dependency-groups"].values():
        found.update(entry for entry in group if isinstance(entry, str))
    for path in ROOT.glob("packages/*/pyproject.toml"):
        manifest = tomllib.loads(path.read_text())
        found.update(manifest["build-system"]["requires"])
        found.update(manifest["project"].get("dependencies", []))
        for extra in manifest["project"].get("optional-dependencies", {}).values():
            found.update(extra)
    return sorted(entry for entry in found if not entry.startswith("ssm-"))


def run(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def versions_for(interpreter: str, real: bool) -> tuple[str, Versions]:
    """The Python version of `interpreter`, and what the requirements resolve to with it."""
    with tempfile.TemporaryDirectory() as folder:
        run(interpreter, "-m", "venv", folder)
        python = Path(folder, "bin", "python")
        pip = (python, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "--quiet", "--upgrade", "pip")
        if real:
            run(*pip, "install", "--quiet", *requirements())
            entries = json.loads(run(*pip, "list", "--format=json"))
        else:
            resolve = ("install", "--quiet", "--dry-run", "--ignore-installed", "--report=-")
            report = json.loads(run(*pip, *resolve, *requirements()))
            entries = [item["metadata"] for item in report["install"]]
        series = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    pairs = {re.sub(r"[-_.]+", "-", entry["name"]).lower(): entry["version"] for entry in entries}
    # A local label (+cpu) names a build, not a version: leave the choice of the build open.
    return series, {name: version.split("+")[0] for name, version in pairs.items()}


def marker(selected: list[str], tested: list[str]) -> str:
    """Marker for a run of consecutive Python versions; open towards versions not tested."""
    first, last = tested.index(selected[0]), tested.index(selected[-1])
    bounds = []
    if first > 0:
        bounds.append(f'python_version >= "{tested[first]}"')
    if last < len(tested) - 1:
        bounds.append(f'python_version < "{tested[last + 1]}"')
    return " and ".join(bounds)


def lines_for(name: str, by_python: dict[str, Versions]) -> list[str]:
    """One line per run of consecutive Python versions that share a version of `name`."""
    tested = [python for python, versions in by_python.items() if name in versions]
    runs: list[list[str]] = []
    for python in tested:
        same = runs and by_python[runs[-1][-1]][name] == by_python[python][name]
        runs[-1].append(python) if same else runs.append([python])
    if len(runs) == 1:  # also where only some Pythons need it: a constraint installs nothing
        return [f"{name}=={by_python[tested[0]][name]}"]
    return [f"{name}=={by_python[r[0]][name]} ; {marker(r, tested)}" for r in runs]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("error: no interpreter; usage: python tools/constraints.py python3.11 python3.10")
    found = dict(versions_for(name, real=i == 0) for i, name in enumerate(sys.argv[1:]))
    by_python = dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
    names = sorted({name for versions in by_python.values() for name in versions})
    pinned = [name for name in names if not UNPINNED.match(name)]
    text = "\n".join(line for name in pinned for line in lines_for(name, by_python))
    OUTPUT.write_text(f"{HEADER}# Python versions: {', '.join(by_python)}.\n{text}\n")
    print(f"{OUTPUT.relative_to(ROOT)}: {len(pinned)} distributions")


if __name__ == "__main__":
    main()
