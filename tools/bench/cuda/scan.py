"""Selective scan: ours, mamba-ssm's CUDA kernels called directly and by its function, PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssm_kernels import selective_scan, selective_scan_reference

from ..report import OURS
from . import floors
from .cases import Scan
from .subject import Action, Problem, Results, Subject, differentiable, doubled, leaf, turn

MAMBA, MAMBA_DIRECT = "mamba-ssm", "mamba-ssm, direct"
PYTORCH = "PyTorch, loop"
EXACT_BYTES = 24e9  # memory that the float64 results may take at a time
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 2e-2}
PER_BATCH = ("u", "delta", "B", "C", "z")
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def problem(name: str, case: Scan, dtype: torch.dtype, device: torch.device) -> Problem:
    leaves = inputs(case, dtype, device)
    grad_y = torch.randn(case.b, case.l, case.d, device=device).to(dtype)

    def ours() -> Tensor:
        return _tensor(selective_scan(**_options(leaves)))

    def loop() -> Tensor:
        return _tensor(selective_scan_reference(**_options(leaves)))

    return Problem(
        name,
        partial(exact, leaves, grad_y),
        {
            OURS: lambda: differentiable(OURS, ours, leaves, grad_y),
            MAMBA_DIRECT: lambda: _mamba_direct(leaves, grad_y),
            MAMBA: lambda: _mamba(leaves, grad_y),
            PYTORCH: lambda: differentiable(PYTORCH, loop, leaves, grad_y, slow=True),
        },
        floors.scan(case, dtype.itemsize),
        case.elements * case.n,
        TOLERANCE[dtype],
    )


def inputs(case: Scan, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Leaves in the layout (b, l, d) with step sizes around 0.02; parameters in float32."""
    b, d, l, n = case.b, case.d, case.l, case.n
    rows = (b, l, n) if case.groups == 1 else (b, l, case.groups, n)
    random = partial(torch.randn, device=device)
    tensors = {
        "u": random(b, l, d).to(dtype),
        "delta": (0.5 * random(b, l, d)).to(dtype),
        "A": -torch.arange(1.0, n + 1, device=device).repeat(d, 1),
        "B": random(rows).to(dtype),
        "C": random(rows).to(dtype),
        "D": random(d),
        "delta_bias": random(d) - 4,
    }
    if case.gate:
        tensors["z"] = random(b, l, d).to(dtype)
    return {name: leaf(x) for name, x in tensors.items()}


def exact(leaves: dict[str, Tensor], grad_y: Tensor) -> Results:
    """Values and gradients in float64, for as many sequences at a time as memory allows."""
    b, l, d = leaves["u"].shape
    n = leaves["A"].shape[1]
    at_once = max(int(EXACT_BYTES // (8 * 8 * l * d * n)), 1)
    parts = [_exact(leaves, grad_y, slice(i, i + at_once)) for i in range(0, b, at_once)]
    found = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        per_batch = name == "y" or name.removeprefix("grad ") in PER_BATCH
        found[name] = torch.cat(values) if per_batch else torch.stack(values).sum(0)
    return found


def _exact(leaves: dict[str, Tensor], grad_y: Tensor, rows: slice) -> Results:
    wide = doubled({k: x[rows] if k in PER_BATCH else x for k, x in leaves.items()})

    def call() -> Tensor:
        return _tensor(selective_scan_reference(**_options(wide)))

    return differentiable("exact", call, wide, grad_y[rows].double()).results()


def _options(leaves: dict[str, Tensor]) -> dict[str, Any]:
    return {**leaves, "delta_softplus": True}


def _tensor(y: Any) -> Tensor:
    assert isinstance(y, Tensor)
    return y


def _channels_first(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers as (b, d, l), and B and C as (b, g, n, l)."""
    turned = {}
    for name, x in leaves.items():
        x = x.unsqueeze(2) if name in "BC" and x.dim() == 3 else x
        order = {3: (0, 2, 1), 4: (0, 2, 3, 1)}.get(x.dim())
        turned[name] = leaf(x if order is None else x.permute(order))
    return turned


def _mamba(leaves: dict[str, Tensor], grad_y: Tensor) -> Subject:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    turned = _channels_first(leaves)
    turned_grad = grad_y.transpose(1, 2).contiguous()
    subject = differentiable(
        MAMBA, lambda: selective_scan_fn(**_options(turned)), turned, turned_grad, turned=True
    )
    return _like(subject, leaves)


def _mamba_direct(leaves: dict[str, Tensor], grad_y: Tensor) -> Subject:
    """The functions of the extension module without autograd."""
    import selective_scan_cuda

    turned = {name: x.detach() for name, x in _channels_first(leaves).items()}
    inputs = [turned.get(name) for name in NAMES]
    turned_grad = grad_y.transpose(1, 2).contiguous()
    gate = "z" in turned

    def forward() -> Any:
        return _with_offsets(selective_scan_cuda.fwd, *inputs, True)

    def backward() -> Action:
        out, x, *_ = forward()
        kept = (turned_grad, x, out if gate else None, None, True, False)
        return lambda: _with_offsets(selective_scan_cuda.bwd, *inputs, *kept)

    def results() -> Results:
        out, _, *rest = forward()
        gradients: Any = backward()()
        named = dict(zip(("u", "delta", "A", "B", "C", "D", "delta_bias"), gradients, strict=False))
        if gate:
            named["z"] = gradients[7]
        found = {"y": rest[0] if gate else out, **{f"grad {k}": g for k, g in named.items()}}
        return {name: turn(x, True) for name, x in found.items()}

    return _like(Subject(MAMBA_DIRECT, forward, backward, results), leaves)


def _with_offsets(function: Callable[..., Any], *arguments: Any) -> Any:
    """Versions that know packed sequences want their offsets as one more argument."""
    try:
        return function(*arguments)
    except TypeError:
        return function(*arguments, None)


def _like(subject: Subject, leaves: dict[str, Tensor]) -> Subject:
    """The subject with the gradients of B and C in the shapes of the leaves."""

    def results() -> Results:
        found = subject.results()
        for name in ("B", "C"):
            found[f"grad {name}"] = found[f"grad {name}"].reshape(leaves[name].shape)
        return found

    return Subject(subject.name, subject.forward, subject.backward, results, subject.slow)
