# The extension module csrc/cuda/bind_cuda.cpp: the operators of _native, and what is known of the
# GPU. Versions are 1000 major + 10 minor; 0 without a driver.

from ._native import *  # noqa: F403

architectures: str

def runtime_version() -> int: ...
def driver_version() -> int: ...
def device_problem(device: int) -> str: ...
