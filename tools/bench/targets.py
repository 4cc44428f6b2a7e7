"""The targets of the CPU operators, checked against the measured rows.

Ratios to others hold on any machine, up to noise: they are the gate, at half of the target. Rates,
the overhead of a step and parts of the limit belong to one machine and are no gate; errors are one
without any slack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import decode, language, s4, s5
from .compare import PASSES
from .figures import (
    Finder,
    Row,
    error,
    largest,
    latency,
    least_ratio,
    of_limit,
    rate,
    ratio,
    step,
    text_step,
)
from .peers import SCAN_PEERS


@dataclass(frozen=True)
class Target:
    """A figure that must be reached.

    Attributes:
        must, aim: the figure shall be at least that, or at most where aim <= must; the aim may be
            missing.
        find: the figure, from the rows of all parts.
        slack: the gate lets timings be worse by this factor; None: no gate.
    """

    name: str
    must: float
    aim: float | None
    find: Finder
    slack: float | None = None

    @property
    def at_most(self) -> bool:
        return self.aim is not None and self.aim <= self.must

    def met(self, value: float, factor: float = 1.0) -> bool:
        return value <= self.must * factor if self.at_most else value >= self.must / factor


BOTH = "forward+backward"
FORMULATIONS = tuple(peer.name for peer in SCAN_PEERS if peer.formulation)
MAMBAPY, INDEXING, TORCH_CONV = ("mambapy pscan",), ("loop, indexing",), ("torch Conv1d",)
#: whole models are compared with attention and an MLP of the usual width
ATTENTION = "attention, mlp 512"

RATES = [
    Target("scan forward, G/s", 10, 11.5, rate("scan", "forward")),
    Target("scan backward, G/s", 3.7, 5.1, rate("scan", "backward")),
    Target("scan forward, part of limit", 0.77, 0.89, of_limit("scan", "forward", "ABCDEF")),
    Target("scan backward, part of limit", 0.5, 0.7, of_limit("scan", "backward", "ABCDEF")),
    Target("scan forward, AVX2, G/s", 6, 7, rate("variants", "forward", "avx2")),
    Target("scan forward, (b, d, l), G/s", 7.5, 8.5, rate("variants", "forward", "(b, d, l)")),
    Target("conv, part of bandwidth, BCEF", 0.6, 0.85, of_limit("conv", BOTH, "BCEF")),
]
RATIOS = [
    Target("scan vs PyTorch, A", 30, 50, ratio("scan", BOTH, FORMULATIONS, "A"), 2.0),
    Target("scan vs PyTorch, B-F", 40, 70, ratio("scan", BOTH, FORMULATIONS, "BCDEF"), 2.0),
    Target("scan vs mambapy, B-F", 75, 120, ratio("scan", BOTH, MAMBAPY, "BCDEF"), 2.0),
    Target("scan forward vs indexing", 100, 135, ratio("scan", "forward", INDEXING, "BCDE"), 2.0),
    Target("memory vs mambapy", 30, 40, ratio("memory", "extra memory", MAMBAPY, "ABCDEF"), 2.0),
    Target("conv vs torch Conv1d", 10, 15, ratio("conv", BOTH, TORCH_CONV, "ABCDEF"), 2.0),
    Target("CIFAR step / Transformer's", 0.95, 0.8, step("CIFAR", ATTENTION), 2.0),
    Target("text step / Transformer's", 0.95, 0.8, step("text", ATTENTION), 2.0),
    Target("MNIST step / RNN's", 1.8, 1.3, step("MNIST", "mnist-rnn"), 2.0),
    Target("Vim latency / DeiT's", 1.5, 1.5, latency("deit_tiny_patch16_224"), None),
]
ERRORS = [
    Target("error of y", 5e-7, 5e-7, error("error of y", False), 1.0),
    Target("error of gradients", 2e-6, 2e-6, error("error of grad", False), 1.0),
    Target("error of y, slow poles", 5e-6, 5e-6, error("error of y", True), 1.0),
]
THEIRS = ("transformers",)
SEQUENCE_LAYERS = [
    *(
        Target(f"{name} {what}", must, None, least_ratio(part, what, subjects, case), 2.0)
        for name, must, part, subjects, case in (
            ("S4D kernel vs table", 5, "s4", (s4.TABLE,), s4.S4D),
            ("S4 kernel vs table", 5, "s4", (s4.TABLE,), s4.S4),
            ("S5 scan vs associative", 10, "s5", s5.PARALLEL, ""),
            ("Mamba-2 vs transformers", 3, "mamba2", THEIRS, "layer"),
        )
        for what in PASSES
    ),
    Target("overhead of a step, us", 150, 150, largest("decode", decode.OVERHEAD, 1e6)),
]
LANGUAGE = [
    Target("character step / Transformer's", 0.95, 0.8, text_step(language.CONTEXTS[:1]), 2.0),
    Target("the same, context 1024 and more", 0.7, 0.7, text_step(language.CONTEXTS[1:]), 2.0),
    *(
        Target(f"{what} vs transformers", must, None, least_ratio("language", what, THEIRS, ""), 2)
        for what, must in ((language.DECODE, 5), (language.PREFILL, 10))
    ),
]

ALL = (*RATES, *RATIOS, *ERRORS, *SEQUENCE_LAYERS, *LANGUAGE)


def show(rows: list[Row], targets: Sequence[Target] = ALL) -> list[str]:
    """Print the table; return why the gate is not passed, empty if it is."""
    line = "{:42} {:>9} {:>9} {:>9}  {:13} {}"
    print("\n== targets\n" + line.format("target", "must", "aim", "measured", "", "worst at"))
    failed, n_gates = [], 0
    for target in targets:
        sign = "<=" if target.at_most else ">="
        wanted = [
            "" if number is None else f"{sign} {number:.3g}" for number in (target.must, target.aim)
        ]
        figure = target.find(rows)
        if figure is None:
            print(line.format(target.name, *wanted, "", "not measured", ""))
            continue
        verdict = "met" if target.met(figure.value) else "MISSED"
        n_gates += target.slack is not None
        if target.slack is not None and not target.met(figure.value, target.slack):
            failed.append(f"{target.name} is {figure.value:.3g}")
            verdict = "FAILS GATE"
        print(line.format(target.name, *wanted, f"{figure.value:.3g}", verdict, figure.where))
    # a gate that saw nothing must not pass
    return failed if n_gates else ["no target with a gate was measured"]
