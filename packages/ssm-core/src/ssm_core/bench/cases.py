"""What is measured, how, and what was found: one record each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        kind: name of the `BenchmarkSpec` that knows the model.
        size: pixels of a side, tokens of a text: what the kind says.
    """

    kind: str
    model: str
    size: int
    batch_size: int
    mode: Mode


@dataclass(frozen=True)
class Conditions:
    """How it is measured.

    Attributes:
        device: "cpu", "cuda", "cuda:1".
        precision: of autocast; weights are float32.
        threads: of the CPU; None leaves torch's default.
        seconds: for the timed runs of one case; 3 runs are made in any case, 1 if a single one
            takes longer than that.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    seconds: float = 3.0


@dataclass(frozen=True)
class Row:
    """What was found; empty where `note` says why there is nothing."""

    model: str
    size: int
    batch_size: int
    mode: str
    parameters: int | None = None
    runs: int | None = None
    latency_ms: float | None = None
    """median of the runs, for the whole batch"""
    fastest_ms: float | None = None
    per_s: float | None = None
    """images or tokens per second: what the kind counts"""
    memory_mb: float | None = None
    """the most memory at a time, in 10^6 bytes; see `measure`"""
    note: str = ""
