"""What the CUDA kernels are held to on one H200, in bfloat16; measured rows decide.

`must` is the target, `aim` what the design of the kernels estimates. Fractions of the floor belong
to the machine; ratios are of a peer's time to ours.
"""

from __future__ import annotations

from ..figures import Figure, Row, of_limit, ran, ratio, worst
from ..targets import Target
from . import conv, diagonal, scan, ssd, step
from .cases import CONVS, DIAGONALS, SCANS, SSDS, STEPS
from .measure import REPEATED

PARTS = ("scan", "conv", "conv-step", "ssd", "diagonal", "step")
MAMBA = (scan.MAMBA, scan.MAMBA_DIRECT)
DAO = (conv.DAO, conv.DAO_LAST)


def names(cases: object, dtype: str = "bf16") -> tuple[str, ...]:
    assert isinstance(cases, dict)
    return tuple(f"{name} {dtype}" for name in cases)


LONG = names({name: case for name, case in SCANS.items() if case.l >= 2048})
SHORT = names({name: case for name, case in SCANS.items() if case.l <= 256})
FLOOR = names({name: 0 for name in SCANS if name.startswith(("mamba-130m", "Vim-S"))})
EVERY = names(SCANS) + names(SCANS, "fp32")


def unequal(rows: list[Row]) -> Figure | None:
    """The most results that had other bits when they were computed again."""
    found = [
        (row["value"], f"{row['part'].removeprefix('cuda ')}, {row['case']}")
        for part in PARTS
        for row in ran(rows, f"cuda {part}", what=REPEATED)
    ]
    return worst(found, at_most=True)


TARGETS = [
    Target("scan forward, part of floor", 0.7, 0.85, of_limit("cuda scan", "forward", FLOOR)),
    Target("same, every listed shape", 0.7, 0.85, of_limit("cuda scan", "forward", names(SCANS))),
    Target(
        "scan backward, part of floor", 1 / 3, 0.5, of_limit("cuda scan", "backward", names(SCANS))
    ),
    Target("forward vs mamba, l >= 2048", 1.5, 2.4, ratio("cuda scan", "forward", MAMBA, LONG)),
    Target("forward vs mamba, l <= 256", 3.5, 5.5, ratio("cuda scan", "forward", MAMBA, SHORT)),
    Target("backward vs mamba, l >= 2048", 2, 3, ratio("cuda scan", "backward", MAMBA, LONG)),
    Target("backward vs mamba, l <= 256", 3, 5, ratio("cuda scan", "backward", MAMBA, SHORT)),
    Target("forward vs mamba, all", 1, 1.5, ratio("cuda scan", "forward", MAMBA, EVERY)),
    Target("backward vs mamba, all", 1, 1.5, ratio("cuda scan", "backward", MAMBA, EVERY)),
]
OTHERS = {
    "conv {} vs Dao": ("cuda conv", DAO, names(CONVS)),
    "SSD {} vs Triton": ("cuda ssd", (ssd.TRITON,), names(SSDS)),
    "diagonal {} vs accelerated": (
        "cuda diagonal",
        (diagonal.WARP, diagonal.TRITON),
        names(DIAGONALS),
    ),
}
TARGETS += [
    Target(name.format(what), 1, 1.5, ratio(part, what, subjects, shapes))
    for name, (part, subjects, shapes) in OTHERS.items()
    for what in ("forward", "backward")
]
TARGETS += [
    Target("step vs Triton", 1, 1.5, ratio("cuda step", "forward", (step.TRITON,), names(STEPS))),
    Target("unequal results of 3 runs", 0, 0, unequal),
]
