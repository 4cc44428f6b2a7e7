"""Part variants: the scan with other options, types, layouts, instruction sets and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssm_kernels import native, selective_scan

from .cases import Shape, Subject, channels_first, scan_inputs
from .compare import Comparison
from .limits import Limits
from .options import Options
from .ours import scan_subject
from .report import OURS, Report

STATES = (1, 8, 64)


def run(report: Report, options: Options) -> None:
    """Every variant on shape B, or on the first of the chosen shapes."""
    name = "B" if "B" in options.shapes else next(iter(options.shapes))
    shape = options.shapes[name]

    def add(label: str, subject: Subject, limits: Limits | None, shape: Shape = shape) -> None:
        bound = None if limits is None else lambda what: limits.scan_s(shape, what)
        budget_s = options.budget_s / 3
        case = f"{name} {label}"
        Comparison(report, case, shape.state_steps, bound, budget_s).add_ours(subject)

    inputs = scan_inputs(shape)
    grad_y = torch.randn_like(inputs.u)
    plain = scan_subject(inputs, grad_y)
    add("float32, n = 16" if shape.n == 16 else "float32", plain, options.limits())
    for isa in reversed(native.available_isas()):
        if isa != native.isa():
            limits = options.limits(isa=isa)
            with instruction_set(isa):
                add(isa, plain, limits)
    for threads in sorted({1, torch.get_num_threads()} - {torch.get_num_threads()}):
        limits = options.limits(threads=threads)
        with thread_count(threads):
            add(f"{threads} thread", plain, limits)
    add("(b, d, l) input", transposed(shape, grad_y), options.limits())
    add("gate, softplus, bias", gated(shape, grad_y), options.limits())
    add("bfloat16", reduced(shape, grad_y), options.limits())
    add("complex, n = 8", complex_A(shape, grad_y), None, shape._replace(n=8))
    for n in STATES:
        other = shape._replace(n=n)
        add(f"n = {n}", scan_subject(scan_inputs(other), grad_y), options.limits(), other)


def transposed(shape: Shape, grad_y: Tensor) -> Subject:
    """Activations that lie in memory as (b, d, l) and (b, n, l), given as views (b, l, ...)."""
    inputs = channels_first(scan_inputs(shape))
    u, delta, A, B, C, D = inputs
    grad_y = grad_y.transpose(1, 2).contiguous().transpose(1, 2)

    def call() -> Tensor:
        turned = [x.transpose(1, 2) for x in (u, delta, B, C)]
        return _scan(turned[0], turned[1], A, turned[2], turned[3], D)

    return Subject(OURS, call, inputs, grad_y)


def gated(shape: Shape, grad_y: Tensor) -> Subject:
    """As Mamba calls it: gate, and the step size through bias and softplus."""
    inputs = scan_inputs(shape)
    z = torch.randn_like(inputs.u).requires_grad_()
    bias = torch.full((shape.d,), -4.6).requires_grad_()

    def call() -> Tensor:
        return _scan(*inputs, z, bias, True)

    return Subject(OURS, call, (*inputs, z, bias), grad_y)


def reduced(shape: Shape, grad_y: Tensor) -> Subject:
    """Activations in bfloat16, parameters in float32."""
    u, delta, A, B, C, D = (x.detach() for x in scan_inputs(shape))
    leaves = (u.bfloat16(), delta.bfloat16(), A, B.bfloat16(), C.bfloat16(), D)
    for leaf in leaves:
        leaf.requires_grad_()
    return Subject(OURS, lambda: _scan(*leaves), leaves, grad_y.bfloat16())


def complex_A(shape: Shape, grad_y: Tensor) -> Subject:
    """Eight complex states, S4D-Lin: A = -1/2 + i pi k. B and C are complex as well."""
    u, delta, _, B, C, D = (x.detach() for x in scan_inputs(shape._replace(n=8)))
    A = torch.complex(torch.full((8,), -0.5), torch.pi * torch.arange(8.0)).repeat(shape.d, 1)
    B, C = torch.complex(B, B.flip(1)), torch.complex(C, C.flip(1))
    leaves = (u, delta, A, B, C, D)
    for leaf in leaves:
        leaf.requires_grad_()
    return Subject(OURS, lambda: _scan(*leaves), leaves, grad_y)


def _scan(*arguments: object) -> Tensor:
    call: Callable[..., object] = selective_scan
    y = call(*arguments)
    assert isinstance(y, Tensor)
    return y


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    before = native.isa()
    native.set_isa(name)
    try:
        yield
    finally:
        native.set_isa(before)


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
