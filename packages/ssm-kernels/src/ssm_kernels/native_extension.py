"""The extension modules, which know nothing of torch, and what they are given for tensors.

`_native` runs on the CPU, `_cuda` on NVIDIA GPUs; both have the same functions. `_cuda` is loaded
when the first CUDA tensor arrives. `_simulated`, which only developers build, runs the kernels of
`_cuda` on CPU tensors: tests put it in the place of `_native`.

The kernels read addresses and strides and nothing else of a tensor: everything lazy has to be
carried out first (`resolved`), and a complex number is two real ones (`pairs`).
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, overload

import torch  # first: the kernels run on the threads of the OpenMP runtime that torch loads
from torch import Tensor

IMPORT_ERROR: str | None = None
_native: Any = None
try:
    # not `from ssm_kernels import`, which blames a circular import when the file is missing
    import ssm_kernels._native as _native
except ImportError as error:
    IMPORT_ERROR = str(error)

_on_host: Any = None if IMPORT_ERROR else _native
_current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # not in builds without CUDA

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


@cache
def cuda_module() -> ModuleType:
    """The module `_cuda`; ImportError if it was not built or cannot be loaded."""
    import ssm_kernels._cuda as _cuda

    return _cuda


def module_for(tensor: Tensor) -> Any:
    """The module whose kernels run on the tensor's device."""
    return cuda_module() if tensor.is_cuda else _on_host


class _Workspace:
    """Gives a kernel scratch memory for one call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, n_bytes: int) -> int:
        self.memory = torch.empty(n_bytes, dtype=torch.uint8, device=self.device)
        return self.memory.data_ptr()


def place(inputs: Any, module: Any, tensor: Tensor) -> None:
    """Tell the inputs of a kernel where it runs: on the device and stream of the tensor."""
    if module is not _native:
        inputs.set_cuda(cuda_call(module, tensor))


def cuda_call(module: Any, tensor: Tensor) -> Any:
    """Where a call with this tensor runs, for `module`."""
    if module is _native:
        return _NO_CUDA
    device = tensor.device
    if not tensor.is_cuda:  # simulated
        return module.CudaCall(0, 0, _Workspace(device))
    assert _current_stream is not None
    return module.CudaCall(device.index, _current_stream(device.index), _Workspace(device))


_NO_CUDA = None if IMPORT_ERROR else _native.CudaCall()


def resolved(tensor: Tensor) -> Tensor:
    """The tensor with a pending conjugation or negation (`x.conj()`, `x.conj().imag`) in memory."""
    if tensor.is_neg() or tensor.is_conj():
        return tensor.resolve_neg().resolve_conj()
    return tensor


@overload
def contiguous(tensor: Tensor) -> Tensor: ...
@overload
def contiguous(tensor: None) -> None: ...
def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else resolved(tensor).contiguous()


def pairs(tensor: Tensor) -> Tensor:
    """A contiguous complex tensor (..., n) as the real one (..., 2 n); a real one as it is."""
    return torch.view_as_real(tensor).flatten(-2) if tensor.is_complex() else tensor


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def view(tensor: Tensor | None) -> tuple[int, int, int, int, int]:
    """Address, strides and dtype code of a (b, l, d) tensor."""
    if tensor is None:
        return (0, 0, 0, 0, 0)
    stride_b, stride_l, stride_d = tensor.stride()
    return (tensor.data_ptr(), stride_b, stride_l, stride_d, DTYPE_CODES[tensor.dtype])


def coefficient(tensor: Tensor) -> tuple[int, int, int, int, int, int]:
    """Address, groups and strides of B or C: (b, l, n), (b, l, g, n), or constant (d, n).

    A constant one is contiguous. The strides of a complex tensor count real numbers.
    """
    if tensor.dim() == 2:
        return (tensor.data_ptr(), 0, 0, 0, 0, 0)
    if tensor.dim() == 3:
        stride_b, stride_l, stride_n = tensor.stride()
        groups, stride_g = 1, 0
    else:
        stride_b, stride_l, stride_g, stride_n = tensor.stride()
        groups = tensor.shape[2]
    if tensor.is_complex():
        stride_b, stride_l = 2 * stride_b, 2 * stride_l
        stride_g, stride_n = 2 * stride_g, 2 * stride_n
    return (tensor.data_ptr(), groups, stride_b, stride_l, stride_g, stride_n)
