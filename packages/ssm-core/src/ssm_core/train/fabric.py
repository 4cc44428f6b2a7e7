"""Devices, precision and processes of a run."""

from __future__ import annotations

import os

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
