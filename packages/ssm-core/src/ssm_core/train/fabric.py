"""Devices, precision and processes of a run."""

from __future__ import annotations

import gc
import os

import torch.distributed as dist
from lightning_fabric import Fabric


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


def leave_processes() -> None:
    """End the process group of a run, if there is one: call it last, when nothing uses the run.

    Without it gloo's threads outlive the interpreter's end, and some of these processes abort there
    although their run was complete.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # the model holds the group and is part of a reference cycle
        dist.destroy_process_group()
