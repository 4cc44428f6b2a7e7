"""The compiled scans of several directions whose outputs are added up, in one launch where possible."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .native_extension import address, module_for, view
from .native_scan import Scan, ScanMode, ScanTensors, selective_scan_forward


def selective_scan_directions_forward(
    scans: Sequence[ScanTensors],
    modes: Sequence[ScanMode],
    *,
    into: Tensor,
    checkpoints: Tensor | None,
) -> None:
    """Fill `into`, (b, l, d) of a type that sums do not round to 16 bits, with the sum of scans.

    scans: the first nine arguments of `selective_scan_forward`; z may be there in the last only and
    gates the sum. checkpoints: those of all scans, one after the other, or None where not wanted.
    """
    if not module_for(into).scans_directions_together():
        for k, (tensors, mode) in enumerate(zip(scans, modes, strict=True)):
            selective_scan_forward(
                *tensors,
                mode=mode,
                save_for_backward=checkpoints is not None,
                into=into,
                add=k > 0,
                checkpoints=None if checkpoints is None else checkpoints[k],
            )
        return
    together = [Scan(tensors, None, mode) for tensors, mode in zip(scans, modes, strict=True)]
    kept = [0] * len(together) if checkpoints is None else [address(x) for x in checkpoints]
    together[0].kernels.selective_scan_directions_forward(
        [scan.inputs for scan in together], view(into), kept
    )
