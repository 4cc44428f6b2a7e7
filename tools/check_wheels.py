"""Check what wheels and source distributions hold: `python tools/check_wheels.py FOLDER`.

Wheels hold exactly the package's files in the repository, extension modules and metadata with the
licence; source distributions hold every file in the repository of the package, and no build.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = (".so", ".pyd")
ADDED = {"PKG-INFO", ".gitignore"}  # by the build tools


def files_of(package: str) -> set[str]:
    """The files of `package` that are in the repository, relative to its folder."""
    folder = ROOT / "packages" / package
    listing = subprocess.run(
        ["git", "ls-files"], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    return set(listing.stdout.split("\n")) - {""}


def sdist_problems(files: set[str], members: Iterable[str]) -> list[str]:
    """What is missing in the source distribution `members` of `files`, and what is too much."""
    found = {name.split("/", 1)[1] for name in members} - ADDED
    return [f"lacks {name}" for name in sorted(files - found)] + [
        f"has {name}, which the repository has not" for name in sorted(found - files)
    ]


def wheel_problems(files: set[str], members: Iterable[str]) -> list[str]:
    """The same of a wheel, which holds the files under src/, libraries and metadata."""
    code = {name.removeprefix("src/") for name in files if name.startswith("src/")}
    found = {name for name in members if not name.endswith("/")}
    metadata = {name for name in found if ".dist-info/" in name}
    libraries = {name for name in found if name.endswith(BUILT)}
    problems = [f"lacks {name}" for name in sorted(code - found)]
    extra = sorted(found - code - metadata - libraries)
    problems += [f"has {name}, which the repository has not" for name in extra]
    if not any(name.endswith("/LICENSE") for name in metadata):
        problems.append("lacks the licence")
    if not any(name.endswith("/py.typed") for name in code):
        problems.append("lacks py.typed")
    native = any("/_native." in name for name in libraries)
    if native != ("ssm_kernels/__init__.py" in code):
        problems.append("has a native library" if native else "lacks the native library")
    return problems


def problems_of(path: Path) -> list[str]:
    package = path.name.split("-", 1)[0].replace("_", "-")
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel_problems(files_of(package), wheel.namelist())
    with tarfile.open(path) as sdist:
        return sdist_problems(files_of(package), [m.name for m in sdist.getmembers() if m.isfile()])


def main() -> None:
    folder = Path(sys.argv[1])
    paths = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    problems = [f"{path.name} {problem}" for path in paths for problem in problems_of(path)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems or not paths:
        sys.exit(1 if paths else f"error: no wheels or source distributions in {folder}")
    print(f"{len(paths)} files hold what they must")


if __name__ == "__main__":
    main()
