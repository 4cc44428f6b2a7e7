"""Argument checks shared by the operators, and the rules for number types.

The checks run before every kernel launch, so they read shapes and types only and build a message
only when something is wrong.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .errors import ArgumentError, DeviceError, DTypeError, ShapeError

FLOAT_DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
COMPLEX_DTYPES = frozenset({torch.complex64, torch.complex128})
#: `dtype.to_complex()` as a table: compilers cannot trace the method.
COMPLEX_OF = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def compute_dtype(*activations: Tensor | None) -> torch.dtype:
    """Return the real type of sums and states: float64 if any activation is, else float32."""
    for tensor in activations:
        if tensor is not None and tensor.dtype in (torch.float64, torch.complex128):
            return torch.float64
    return torch.float32


def check_tensors(
    operator: str,
    arguments: tuple[object, ...],
    required: int,
    may_be_complex: frozenset[str] = frozenset(),
) -> None:
    """Check that the arguments are floating-point tensors on the device of the first.

    `arguments` is a named tuple; entries from the index `required` on may be None.
    """
    device = None
    for position, tensor in enumerate(arguments):
        if tensor is None and position >= required:
            continue
        if not isinstance(tensor, Tensor):
            raise not_a_tensor(operator, _name(arguments, position), tensor)
        if tensor.dtype not in FLOAT_DTYPES:
            name = _name(arguments, position)
            if tensor.dtype not in COMPLEX_DTYPES:
                raise DTypeError(
                    f"{operator}: {name} has dtype {tensor.dtype}, expected a floating-point dtype "
                    "(float32, float64, bfloat16 or float16)"
                )
            if name not in may_be_complex:
                raise must_be_real(operator, name, tensor)
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise DeviceError(
                f"{operator}: {_name(arguments, position)} is on {tensor.device}, "
                f"expected {device} like {_name(arguments, 0)}"
            )


def check_complex(operator: str, arguments: tuple[Tensor, ...]) -> None:
    """Check that the arguments, a named tuple, are complex tensors on the device of the first."""
    for position, tensor in enumerate(arguments):
        name = _name(arguments, position)
        if not isinstance(tensor, Tensor):
            raise not_a_tensor(operator, name, tensor)
        if tensor.dtype not in COMPLEX_DTYPES:
            raise DTypeError(
                f"{operator}: {name} has dtype {tensor.dtype}, expected complex64 or complex128"
            )
        if tensor.device != arguments[0].device:
            raise DeviceError(
                f"{operator}: {name} is on {tensor.device}, "
                f"expected {arguments[0].device} like {_name(arguments, 0)}"
            )


def wider_complex(*tensors: Tensor) -> torch.dtype:
    """Return complex128 if one of the complex tensors has it, else complex64.

    Not `torch.promote_types`: an export of PyTorch 2.6 records it and cannot read it back.
    """
    is_double = any(x.dtype is torch.complex128 for x in tensors)
    return torch.complex128 if is_double else torch.complex64


def _name(arguments: tuple[object, ...], position: int) -> str:
    fields: tuple[str, ...] = type(arguments)._fields  # type: ignore[attr-defined]
    return fields[position]


def not_a_tensor(operator: str, name: str, value: object) -> DTypeError:
    """Build the error for an argument that is no tensor."""
    return DTypeError(f"{operator}: {name} is a {type(value).__name__}, expected a torch.Tensor")


def wrong_shape(operator: str, name: str, tensor: Tensor, expected: str) -> ShapeError:
    """Build the error for a tensor of the wrong shape."""
    return ShapeError(f"{operator}: {name} has shape {tuple(tensor.shape)}, expected {expected}")


def must_be_real(operator: str, name: str, tensor: Tensor, why: str = "") -> DTypeError:
    """Build the error for a complex tensor where only a real one makes sense."""
    return DTypeError(f"{operator}: {name} has dtype {tensor.dtype}, expected a real dtype{why}")


def count_sequences(operator: str, cu_seqlens: object, x: Tensor) -> int:
    """Check what the offsets of sequences packed in x (1, l, d) show without reading them.

    The values are read where the sequences are run, by `checked_lengths`: a compiler that traces
    this has none.

    Raises:
        ShapeError: the batch is not 1 or `cu_seqlens` has not one axis.
        DTypeError: `cu_seqlens` is no integer tensor.
    """
    if not isinstance(cu_seqlens, Tensor):
        raise not_a_tensor(operator, "cu_seqlens", cu_seqlens)
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise DTypeError(
            f"{operator}: cu_seqlens has dtype {cu_seqlens.dtype}, expected int32 or int64"
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        raise wrong_shape(operator, "cu_seqlens", cu_seqlens, "(number of sequences + 1,)")
    b = x.shape[0]
    if b != 1:
        raise ShapeError(
            f"{operator}: batch is {b}, expected 1 with cu_seqlens: "
            "lay the sequences end to end along the step axis"
        )
    return cu_seqlens.shape[0] - 1


def checked_lengths(operator: str, cu_seqlens: Tensor, l: int) -> list[int]:
    """Return the lengths of the sequences with the offsets [0, ..., l].

    Raises:
        ArgumentError: the offsets do not start at 0, end at l, or decrease.
    """
    offsets: list[int] = cu_seqlens.tolist()
    lengths = [stop - start for start, stop in pairwise(offsets)]
    if offsets[0] != 0 or offsets[-1] != l or any(length < 0 for length in lengths):
        raise ArgumentError(
            f"{operator}: cu_seqlens is {_shorten(offsets)}, "
            f"expected non-decreasing offsets from 0 to l = {l}"
        )
    return lengths


def checked_offsets(operator: str, cu_seqlens: Tensor, x: Tensor) -> Tensor:
    """Check the offsets of x (1, l, d) like `checked_lengths`; return them as kernels read them.

    Offsets on a GPU are not read, as that would wait for the GPU and cannot be in a CUDA graph: the
    kernels confine what is out of range.
    """
    if cu_seqlens.device.type == "cpu":
        checked_lengths(operator, cu_seqlens, x.shape[1])
    return kernel_offsets(cu_seqlens, x)


def kernel_offsets(cu_seqlens: Tensor, x: Tensor) -> Tensor:
    """Return checked offsets as the kernels read them: int64, contiguous, where x is."""
    return cu_seqlens.to(x.device, torch.int64).contiguous()


def _shorten(values: list[int], limit: int = 12) -> str:
    if len(values) <= limit:
        return str(values)
    head = ", ".join(map(str, values[: limit - 1]))
    return f"[{head}, ..., {values[-1]}]"
