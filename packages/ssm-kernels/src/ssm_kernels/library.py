"""Native kernels as operators of PyTorch: `torch.ops.ssm_kernels.<name>`.

What traces a program (torch.compile, torch.export, fake tensors, dispatch modes, torch.func) sees
only operators that are registered here. A plain eager call does not pass through this: PyTorch's
dispatcher costs more than a short kernel takes (see `library_autograd`), so the public functions
ask `needs_dispatcher` and otherwise launch the kernel themselves. Both ways end in `Kernel.launch`.

Every result is a fresh tensor. One that a call does not have is None in Python and a placeholder of
size 0 in the operator, whose results cannot be optional.

How to register an operator: make an `Operator` of a `Kernel`, or of two a `Differentiable` (in
`library_autograd`), and call that from the public function. In a schema the tensors come first,
what the kernel writes into is marked `Tensor(a!)`, and no argument has a default value (the
dispatcher would drop it from the calls). Compilers keep graphs on disk and know them by name and
schema: whoever changes the shapes or types of results changes one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from . import native
from .backends import Backend, choose_backend
from .library_vmap import Folds, vmap_rule

NAMESPACE = "ssm_kernels"
Arguments: TypeAlias = "tuple[Any, ...]"
Results: TypeAlias = "Tensor | tuple[Tensor | None, ...]"
# Strides: the kernels take any, but a compiler must not choose worse ones than eager code has.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
torch_func_is_active = torch._C._are_functorch_transforms_active
_n_dispatch_modes = torch._C._len_torch_dispatch_stack
_jit_trace = torch._C._get_tracing_state
_PLAIN_TYPES = frozenset({Tensor, torch.nn.Parameter, type(None), bool, int, float, str})


@dataclass(frozen=True)
class Kernel:
    """One call of compiled code.

    Attributes:
        name: of the operator, unique in the namespace.
        schema: arguments and results as in `torch.library.define`: "(Tensor x) -> Tensor".
        launch: runs it on CPU or CUDA tensors that have been checked.
        fake: makes results of the same shapes and types from tensors without data.
        folds: for vmap, see `library_vmap`; None calls the kernel once per mapped entry.
    """

    name: str
    schema: str
    launch: Callable[..., Results]
    fake: Callable[..., Results]
    folds: Folds | None = None


def register(
    kernel: Kernel,
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Register `kernel`, with the gradient if there is one, and return the operator.

    `backward` and `setup_context` are those of `torch.library.register_autograd`. The compiled
    extension need not be there: without it the operator raises BackendError when it runs.
    """
    library = _fresh_library(kernel.name)
    library.define(kernel.name + kernel.schema, tags=_TAGS)

    def run(*arguments: Any) -> Tensor | tuple[Tensor, ...]:
        device = arguments[0].device
        choose_backend(kernel.name, Backend(device.type), device)
        return _with_placeholders(kernel.launch(*arguments), arguments[0])

    def fake(*arguments: Any) -> Tensor | tuple[Tensor, ...]:
        return _with_placeholders(kernel.fake(*arguments), arguments[0])

    for key in ("CPU", "CUDA"):
        library.impl(kernel.name, run, key)
    qualified = f"{NAMESPACE}::{kernel.name}"
    operator = getattr(getattr(torch.ops, NAMESPACE), kernel.name).default
    torch.library.register_fake(qualified, fake, lib=library)
    arguments = operator._schema.arguments
    written = {i: x.name for i, x in enumerate(arguments) if x.is_write}
    rule = vmap_rule(operator, kernel.folds, written)
    torch.library.register_vmap(qualified, rule, lib=library)
    if backward is not None:
        torch.library.register_autograd(
            qualified, backward, setup_context=setup_context, lib=library
        )
    return operator


class Operator:
    """A kernel without a gradient, called like its schema; it may write into its arguments."""

    def __init__(self, kernel: Kernel) -> None:
        self.launch = kernel.launch
        self.op = register(kernel)

    def __call__(self, *arguments: Any) -> Any:
        """Run the kernel on arguments that have been checked, by the shortest way."""
        if is_compiling() or torch_func_is_active() or needs_dispatcher(arguments):
            return self.op(*arguments)
        return self.launch(*arguments)


def needs_dispatcher(arguments: Sequence[Any]) -> bool:
    """Whether something watches the operators of this eager call, or the tensors are not plain.

    Left to the callers, because their answers differ: torch.compile and torch.func transforms.
    """
    return (
        _n_dispatch_modes() > 0
        or _jit_trace() is not None
        or not _PLAIN_TYPES.issuperset(map(type, arguments))
    )


_FUSED_TYPES = (torch.float32, torch.float64)


def runs_unwatched(name: str, tensors: Sequence[Tensor | None]) -> bool:
    """Whether a kernel for inference on the CPU may take the place of several operators.

    It may for plain tensors of one type, float32 or float64, where nothing watches or changes the
    operators: no compiler, transform, forward-mode derivative, autocast or dispatch mode.
    """
    if is_compiling() or torch_func_is_active() or needs_dispatcher(tensors):
        return False
    first = tensors[0]
    assert first is not None
    dtype = first.dtype
    if dtype not in _FUSED_TYPES:
        return False
    for x in tensors:
        if x is not None and (x.dtype is not dtype or not x.is_cpu):
            return False
    return (
        forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and native.has_fused_kernels()
        and choose_backend(name, Backend.AUTO, first.device) is Backend.CPU
    )


def _with_placeholders(outputs: Results, like: Tensor) -> Tensor | tuple[Tensor, ...]:
    if isinstance(outputs, Tensor):
        return outputs
    return tuple(like.new_empty(0) if x is None else x for x in outputs)


def _fresh_library(name: str) -> torch.library.Library:
    """Return an empty library for one operator, which lives as long as the process.

    If this package was imported before, the new import takes over its operators: the libraries
    are kept where both find them.
    """
    libraries = vars(getattr(torch.ops, NAMESPACE)).setdefault("_libraries", {})
    if name in libraries:
        libraries.pop(name)._destroy()
    libraries[name] = torch.library.Library(NAMESPACE, "FRAGMENT")
    return libraries[name]
