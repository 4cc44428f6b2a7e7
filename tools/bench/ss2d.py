"""Part ss2d: the mixer of VMamba, projected before its routes part and after.

Both use this project's scans. Ours projects the map once for all four routes and scans along the
routes by index; the others make a copy of the map per route first.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kernels import selective_scan_reference
from ssm_vision.models.ss2d import SS2D, V0, V05_NOZ, SS2DConfig

from . import contest
from .contest import Call, Contest, Entry, in_words
from .mamba2 import call_of
from .options import Options
from .peers import cross_scan
from .report import OURS, Report

COPIES, COPIES_FIRST = "copies, channels last", "copies, channels first"
FORMS = {"v0": V0, "s1": V05_NOZ}
TOLERANCE = 1e-4


class Size(NamedTuple):
    """A map of the first stage of the tiny models, of an image with 224 x 224 pixels."""

    b: int = 1
    y: int = 56
    x: int = 56
    d: int = 96


def run(report: Report, options: Options) -> None:
    size = Size(2, 3, 4, 8) if options.smoke else Size()
    for name, config in FORMS.items():
        contest.run(report, layer(name, size, config), options)


def layer(name: str, size: Size, config: SS2DConfig) -> Contest:
    """The whole mixer; its inputs are x and the weights, ordered by their names."""
    mixer = SS2D(size.d, config)
    weights = dict(sorted(mixer.named_parameters()))
    x = torch.randn(size).requires_grad_()

    def peer(function: cross_scan.Scan) -> Call:
        def call(x: Tensor, *values: Tensor) -> Tensor:
            y: Tensor = function(x, dict(zip(weights, values, strict=True)))
            return y

        return call

    return Contest(
        f"ss2d {name}",
        in_words(size),
        (
            Entry(OURS, lambda: call_of(mixer, list(weights))),
            Entry(COPIES, lambda: peer(cross_scan.channels_last)),
            Entry(COPIES_FIRST, lambda: peer(cross_scan.channels_first)),
        ),
        peer(partial(cross_scan.channels_last, scan=selective_scan_reference)),
        (x, *weights.values()),
        (x[:, :7, :9].detach().requires_grad_(), *weights.values()),
        4 * size.b * size.y * size.x * config.inner(size.d) * config.d_state,
        TOLERANCE,
    )
