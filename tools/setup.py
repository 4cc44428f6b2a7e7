"""Make or update the virtual environment of this checkout; called by setup.sh.

The packages are installed in editable form with the versions of constraints.txt. A stamp in the
environment keeps hashes of everything the installation depends on, so that a second call does
nothing and a change of the C++ sources rebuilds ssm-kernels alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ssm-kernels", "ssm-core", "ssm-vision", "ssm-text", "ssm-prune")
KERNELS = ROOT / "packages" / "ssm-kernels"
CONSTRAINTS = ROOT / "tools" / "constraints.txt"
VENV = ROOT / os.environ.get("VENV", ".venv")  # an absolute VENV replaces ROOT
STAMP = VENV / "setup-stamp.json"


def main() -> None:
    """Everything, or with the argument `build-tools` CMake, Ninja and what else builds packages."""
    started = time.monotonic()
    make_environment()
    if sys.argv[1:] == ["build-tools"]:
        install_group("build")
        return
    wanted = {"dependencies": hash_of(dependency_files()), "kernels": hash_of(kernel_files())}
    found = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    if found == wanted:
        return
    require_compiler()
    STAMP.unlink(missing_ok=True)  # an interrupted installation must not look complete
    if found.get("dependencies") == wanted["dependencies"]:
        print("==> ssm-kernels: the C++ sources changed, building", flush=True)
        install("--quiet", "--no-deps", *editable("ssm-kernels"))
    else:
        print(f"==> Installing into {VENV.name} (the first time torch is downloaded)", flush=True)
        install_group("dev")
        install(*(word for package in PACKAGES for word in editable(package)))
    STAMP.write_text(json.dumps(wanted))
    print(f"==> Set up in {time.monotonic() - started:.0f} s", flush=True)


def make_environment() -> None:
    """Create VENV with the running interpreter unless one of the same version stands there."""
    try:
        probe = [str(VENV / "bin" / "python"), "-c", "import sys; print(sys.version)"]
        version = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        version = "none"
    if version != sys.version:
        print(f"==> Making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(VENV, clear=True, with_pip=True, symlinks=True)


def dependency_files() -> list[Path]:
    manifests = [KERNELS.parent / package / "pyproject.toml" for package in PACKAGES]
    return [Path(__file__), CONSTRAINTS, ROOT / "pyproject.toml", *manifests]


def kernel_files() -> list[Path]:
    sources = (path for path in (KERNELS / "csrc").rglob("*") if path.is_file())
    return [KERNELS / "CMakeLists.txt", *sorted(sources)]


def hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def require_compiler() -> None:
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        sys.exit(
            f"error: no C++ compiler ({', '.join(names)}); install one "
            "(Debian, Ubuntu: apt install g++; macOS: xcode-select --install) or set CXX"
        )


def gpu_architectures() -> list[str]:
    """Compute capabilities of the GPUs of this machine, such as 90 for 9.0."""
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return sorted({line.strip().replace(".", "") for line in answer.splitlines() if line.strip()})


def editable(package: str) -> tuple[str, str]:
    return "--editable", str(ROOT / "packages" / package)


def install_group(name: str) -> None:
    """Install a dependency group of the root pyproject.toml, which old versions of pip cannot."""
    install("--quiet", "--upgrade", "pip")
    install("--quiet", "--group", f"{ROOT / 'pyproject.toml'}:{name}")


def install(*arguments: str) -> None:
    """Run pip in VENV. The build tools are installed first and pinned, so builds need no isolation;
    objects stay below VENV, so a rebuild compiles only what changed. Python files are compiled when
    they are first imported: compiling all of torch's would take a third of the set-up."""
    build = [
        "--no-build-isolation",
        f"--config-settings=build-dir={VENV / 'build-kernels'}",
        "--config-settings=cmake.define.SSM_KERNELS_SIMULATOR=ON",  # the tests need it
    ]
    if "CUDAARCHS" not in os.environ:  # not for every GPU there is: that takes minutes
        architectures = ";".join(f"{x}-real" for x in gpu_architectures()) or "90-real"
        build.append(f"--config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES={architectures}")
    pip = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--no-compile",
    ]
    command = [*pip, "--constraint", str(CONSTRAINTS), *build, *arguments]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit("error: the installation failed, see pip's message above; run `make setup` again")


if __name__ == "__main__":
    main()
