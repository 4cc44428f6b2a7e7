"""Devices, precision and processes of a run."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
import torch.distributed as dist

from ssm_core.errors import SsmError


@contextmanager
def _nothing_but_the_version(name: str) -> Iterator[None]:
    """Let `import name` give a module with `__version__` alone, unless the real one is there."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in = ModuleType(name)
    stand_in.__version__ = importlib.metadata.version(name)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del sys.modules[name]


# Fabric imports torchmetrics for its version. That brings torchvision, scipy and transformers where
# they are installed: seconds, also for a command that does not measure anything.
with _nothing_but_the_version("torchmetrics"):
    from lightning_fabric import Fabric

#: the smallest number of float16: with a smaller factor, gradients that fit would vanish
SMALLEST_SCALE = 2.0**-24


def make_fabric(accelerator: str, precision: str) -> Fabric:
    """A Fabric for this process: alone, or one of those that torchrun started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Fabric(
        accelerator=accelerator,
        precision=precision,  # type: ignore[arg-type]
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
    )


def unscale(fabric: Fabric, optimizer: torch.optim.Optimizer) -> bool:
    """Make gradients those of the loss, before anything looks at them; False if they overflowed.

    With 16-mixed the loss is multiplied by a factor, so that small gradients are not lost in
    float16. Fabric divides by it only when it clips, and not for fused optimizers.

    Raises:
        SsmError: they overflow whatever the factor is.
    """
    scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is None:
        return True
    optimizer = getattr(optimizer, "optimizer", optimizer)  # the one that Fabric wraps
    scaler.unscale_(optimizer)
    # the scaler's own verdict, which it also goes by in `step`
    found = scaler._found_inf_per_device(optimizer)
    if not any(bool(flag) for flag in found.values()):
        return True
    if scaler.get_scale() < SMALLEST_SCALE:
        raise SsmError(
            "the gradients are not finite, although the factor of the loss has come down to "
            f"{scaler.get_scale():.1e}: lower optim.lr or use trainer.precision bf16-mixed or "
            "32-true; the last checkpoint is kept"
        )
    return False


def leave_processes() -> None:
    """End the process group of a run, if there is one: call it last, when nothing uses the run.

    Without it gloo's threads outlive the interpreter's end, and some of these processes abort there
    although their run was complete.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # the model holds the group and is part of a reference cycle
        dist.destroy_process_group()
