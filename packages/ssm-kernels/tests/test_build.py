"""Whether the build makes CUDA kernels: SSM_KERNELS_CUDA, and what is said where it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

PACKAGE = Path(__file__).parents[1]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])


def configure(folder: Path, cuda: str) -> subprocess.CompletedProcess[str]:
    """Run CMake's first step without any nvcc."""
    cmake = shutil.which("cmake", path=TOOLS) or shutil.which("cmake")
    if cmake is None or shutil.which("nvcc", path=TOOLS):
        pytest.skip("no cmake" if cmake is None else "nvcc lies beside the C++ compiler")
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "CUDAARCHS")}
    return subprocess.run(
        [
            *(cmake, "-S", str(PACKAGE), "-B", str(folder), f"-DSSM_KERNELS_CUDA={cuda}"),
            *("-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}"),
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ],
        env={**environment, "PATH": TOOLS},
        capture_output=True,
        text=True,
        check=False,
    )


def test_auto_does_without_nvcc(tmp_path: Path) -> None:
    done = configure(tmp_path, "auto")
    assert done.returncode == 0, done.stderr
    assert "CUDA kernels: OFF" in done.stdout


@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        ("on", "SSM_KERNELS_CUDA is on and no nvcc was found; put it on the PATH or set CUDACXX"),
        ("yes", "SSM_KERNELS_CUDA is 'yes', expected auto, on or off"),
    ],
)
def test_what_cannot_be_built_is_said(tmp_path: Path, cuda: str, message: str) -> None:
    done = configure(tmp_path, cuda)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
