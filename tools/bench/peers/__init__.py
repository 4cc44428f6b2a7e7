"""Other ways to compute the same: each peer is one function with the scan's or conv's inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..cases import ScanInputs, Subject, channels_first
from . import associative, indexing_loop, mambapy_scan, transformers_scan, unbind_loop

#: (u, delta, A, B, C, D) -> y, in the layout of the peer
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """Another implementation of the scan.

    Attributes:
        name: as printed.
        load: imports what it needs and returns the function; ImportError says what is missing.
        channels_first: it wants (b, d, l) and (b, n, l); it then gets inputs of that layout.
        compiled: it compiles at the first call for a shape, which takes up to a minute.
        formulation: counts as a plain or compiled PyTorch formulation of today.
        only: shapes it is run on; empty means all.
    """

    name: str
    load: Callable[[], Scan]
    channels_first: bool = False
    compiled: bool = False
    formulation: bool = False
    only: tuple[str, ...] = ()

    def subject(self, inputs: ScanInputs, grad_y: Tensor) -> Subject:
        """The peer on these inputs, given in the layout (b, l, d). Raises ImportError."""
        scan = self.load()
        if self.channels_first:
            inputs, grad_y = channels_first(inputs), grad_y.transpose(1, 2).contiguous()
        return Subject(self.name, lambda: scan(*inputs), inputs, grad_y)


SCAN_PEERS = (
    Peer("loop, unbind", unbind_loop.load, formulation=True),
    Peer("loop, indexing", indexing_loop.load, channels_first=True),
    Peer("mambapy pscan", mambapy_scan.load),
    Peer("transformers fallback", transformers_scan.load, channels_first=True),
    Peer("compiled associative_scan", associative.load, compiled=True, formulation=True),
    Peer(
        "compiled loop",
        unbind_loop.load_compiled,
        compiled=True,
        formulation=True,
        only=("A", "B"),  # unrolled: with more steps compiling takes minutes
    ),
)
