"""What all parts are told: which cases, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssm_kernels import native

from .cases import SHAPES, SMOKE_SHAPES, Shape
from .limits import Limits, measured


@dataclass(frozen=True)
class Options:
    """Settings of one run of the benchmark.

    Attributes:
        shape_names: keys of SHAPES.
        peers: names of the peers to run; empty means all that are installed.
        budget_s: seconds spent on one comparison of two subjects, beyond one run of each.
        limit_s: a peer that would take longer for one run is not run.
        smoke: tiny sizes and no compiled peers: everything runs once, the figures mean nothing.
    """

    shape_names: tuple[str, ...]
    peers: tuple[str, ...] = ()
    budget_s: float = 6.0
    limit_s: float = 60.0
    smoke: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        table = SMOKE_SHAPES if self.smoke else SHAPES
        return {name: table[name] for name in self.shape_names}

    def wants(self, peer: str) -> bool:
        return not self.peers or any(word.lower() in peer.lower() for word in self.peers)

    @property
    def loop_s(self) -> float:
        """Seconds for each measured limit of the machine."""
        return 0.002 if self.smoke else 0.25

    def limits(self, threads: int | None = None, isa: str | None = None) -> Limits:
        """Limits of the machine, by default as torch and the kernels are set now."""
        return measured(threads or torch.get_num_threads(), isa or native.isa(), self.loop_s)
