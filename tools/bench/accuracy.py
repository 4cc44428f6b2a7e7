"""Part accuracy: errors in float32 against the reference in float64, relative to the largest value.

Values and gradients on small cuts of the shapes, and y after 16384 steps of poles so slow that the
first input is still there: there an exponential that is wrong at 0 shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_kernels import native, selective_scan

from .cases import ScanInputs, Shape, scan_inputs
from .compare import relative_error
from .options import Options
from .report import OURS, Report
from .variants import instruction_set

CUTS = {"A": Shape(4, 128, 49), "D": Shape(2, 96, 197), "F": Shape(1, 24, 2001)}
LONG = Shape(1, 32, 16384)
SLOW_RATES = torch.logspace(-5, -3, 16)  # of A, 1/step; with a step of 1


def run(report: Report, options: Options) -> None:
    names = [name for name in CUTS if name in options.shape_names] or ["A"]
    names = names[:1] if options.smoke else names
    for isa in reversed(native.available_isas()):
        with instruction_set(isa):
            for name in names:
                shape = Shape(2, 20, 17) if options.smoke else CUTS[name]
                compare(report, f"{isa}, {tuple(shape)}", scan_inputs(shape))
            shape = LONG._replace(l=64 if options.smoke else LONG.l)
            compare(report, f"{isa}, slow poles", slow(shape), only_y=True)
    if not options.smoke:
        compare(report, "reference, slow poles", slow(LONG), only_y=True, backend="reference")


def slow(shape: Shape) -> ScanInputs:
    """Step sizes near 1 and poles that need 1000 to 100 000 steps to forget."""
    u, delta, _, B, C, D = scan_inputs(shape)
    A = -SLOW_RATES[: shape.n].repeat(shape.d, 1)
    return ScanInputs(u, (0.5 + 10 * delta.detach()).requires_grad_(), A.requires_grad_(), B, C, D)


def compare(
    report: Report, case: str, inputs: ScanInputs, only_y: bool = False, backend: str = "auto"
) -> None:
    """Add the error of y and, unless `only_y`, of every gradient."""
    grad_y = torch.randn_like(inputs.u)
    wide = ScanInputs(*(x.detach().double().requires_grad_() for x in inputs))
    subject = OURS if backend == "auto" else backend
    if only_y:
        with torch.no_grad():
            error = relative_error(scan(inputs, backend).double(), scan(wide, "reference"))
        return report.add(case, "error of y", subject, error, unit="", runs=1)
    y, expected = scan(inputs, backend), scan(wide, "reference")
    report.add(case, "error of y", subject, relative_error(y.double(), expected), unit="", runs=1)
    gradients = torch.autograd.grad(y, inputs, grad_y)
    exact = torch.autograd.grad(expected, wide, grad_y.double())
    for name, gradient, value in zip(ScanInputs._fields, gradients, exact, strict=True):
        error = relative_error(gradient.double(), value)
        report.add(case, f"error of grad {name}", subject, error, unit="", runs=1)
    return None


def scan(inputs: ScanInputs, backend: str) -> Tensor:
    y = selective_scan(*inputs, backend=backend)
    assert isinstance(y, Tensor)
    return y
