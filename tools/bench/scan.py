"""Part scan: the selective scan against its peers, forward and with gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .cases import ScanInputs, Subject, scan_inputs, shortened
from .compare import ACTIONS, PASSES, Comparison, disagreement, relative_error
from .options import Options
from .ours import scan_subject
from .peers import SCAN_PEERS, Peer
from .report import Report
from .timing import at_least

AGREES = 1e-4  # of the largest value: float32 sums in another order


def run(report: Report, options: Options) -> None:
    for name, shape in options.shapes.items():
        inputs = scan_inputs(shape)
        grad_y = torch.randn_like(inputs.u)
        bound_s = partial(options.limits().scan_s, shape)
        comparison = Comparison(report, name, shape.state_steps, bound_s, options.budget_s)
        comparison.add_ours(scan_subject(inputs, grad_y))
        for peer in SCAN_PEERS:
            if options.wants(peer.name) and (not peer.only or name in peer.only):
                _Match(comparison, options, peer, inputs, grad_y).run()


@dataclass
class _Match:
    """One peer on one shape."""

    comparison: Comparison
    options: Options
    peer: Peer
    inputs: ScanInputs
    grad_y: Tensor

    def __post_init__(self) -> None:
        self.ours = scan_subject(self.inputs, self.grad_y)

    def run(self) -> None:
        if self.options.smoke and self.peer.compiled:
            return self._not_run("forward", "compiling takes too long for a smoke test")
        torch._dynamo.reset()  # otherwise earlier shapes count against the limit of recompilations
        try:
            subject = self.peer.subject(self.inputs, self.grad_y)
        except ImportError as error:
            return self._not_run("forward", f"not installed ({error})")
        for what in PASSES:
            try:
                self._run_pass(subject, what)
            except (RuntimeError, NotImplementedError) as error:  # a peer's failure is a result
                self._not_run(what, f"{type(error).__name__}: {error}".splitlines()[0][:120])
        if self.options.smoke:
            self._compare_gradients(subject)
        return None

    def _run_pass(self, subject: Subject, what: str) -> None:
        note = ""
        if self.peer.compiled:
            start = time.perf_counter()
            ACTIONS[what](subject)()
            note = f"compiled in {time.perf_counter() - start:.0f} s"
        else:
            bound = at_least(self._seconds_at(what), self.inputs.u.shape[1], self.options.limit_s)
            if bound is not None:
                return self._not_run(what, f"one run would take {bound:.3g} s or more")
        if what == "forward":
            error = disagreement(self.ours, subject, turned=self.peer.channels_first)
            self._must_agree("y", error)
        return self.comparison.add_other(self.ours, subject, what, note)

    def _seconds_at(self, what: str) -> Callable[[int], float]:
        def seconds(l: int) -> float:
            inputs = shortened(self.inputs, l)
            grad_y = self.grad_y[:, :l].contiguous()
            return ACTIONS[what](self.peer.subject(inputs, grad_y))()

        return seconds

    def _compare_gradients(self, subject: Subject) -> None:
        ours = torch.autograd.grad(self.ours.call(), self.ours.leaves, self.ours.grad_y)
        theirs = torch.autograd.grad(subject.call(), subject.leaves, subject.grad_y)
        for name, expected, value in zip(ScanInputs._fields, ours, theirs, strict=True):
            turned = self.peer.channels_first and value.dim() == 3
            error = relative_error(value.transpose(1, 2) if turned else value, expected)
            self._must_agree(f"gradient of {name}", error)

    def _must_agree(self, what: str, error: float) -> None:
        if not error < AGREES:
            case = f"{self.peer.name}, shape {self.comparison.case}"
            self.comparison.report.fail(f"{case}: {what} differs by {error:.1e}")

    def _not_run(self, what: str, why: str) -> None:
        self.comparison.report.add(self.comparison.case, what, self.peer.name, None, note=why)
