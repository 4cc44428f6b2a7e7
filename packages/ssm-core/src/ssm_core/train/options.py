"""The sections that every run has, besides `model`, `data` and `task`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssm_core.errors import ConfigError


@dataclass(frozen=True)
class OptimOptions:
    """Optimizer and learning-rate schedule.

    Args:
        name: adamw, lamb (for batches of thousands) or sgd (with momentum 0.9).
        lr: peak learning rate.
        weight_decay: for matrices only; biases, norms and parameters marked
            `_no_weight_decay` (A_log, D) get none.
        betas: the two decay rates of AdamW and LAMB.
        schedule: constant, or cosine down to `final_lr_frac` of the peak at the last step.
        final_lr_frac: end of the cosine, as a fraction of `lr`.
        warmup_steps: linear rise from 0 to `lr`.
        cooldown_steps: steps at the end that stay at the lowest rate of the cosine.
        layer_decay: learning rates fall by this factor from each layer to the one below it, for
            tuning a trained model; null: all alike.
        grad_clip: largest gradient norm; null switches clipping off.
    """

    name: Literal["adamw", "lamb", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr_frac: float = 0.0
    warmup_steps: int = 0
    cooldown_steps: int = 0
    layer_decay: float | None = None
    grad_clip: float | None = 1.0

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        _require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        for key in ("warmup_steps", "cooldown_steps"):
            _require(getattr(self, key) >= 0, f"optim.{key}", getattr(self, key), "0 or more")
        decay = self.layer_decay
        fine = decay is None or 0 < decay <= 1
        _require(fine, "optim.layer_decay", decay, "null or a number above 0, at most 1")
        clip = self.grad_clip
        _require(clip is None or clip > 0, "optim.grad_clip", clip, "null or a number above 0")


@dataclass(frozen=True)
class LoaderOptions:
    """Batches.

    Args:
        batch_size: examples per step, over all processes together.
        accumulate: parts that a batch is cut into; their gradients are added up, so that a step
            needs the memory of one part.
        repeats: how often in a row an example is drawn, each time augmented anew; an epoch stays
            as long and sees so many times fewer different examples (repeated augmentation).
        eval_batch_size: examples per evaluation batch, over all processes together.
        num_workers: loader processes; 0 loads in the training process.
    """

    batch_size: int = 64
    accumulate: int = 1
    repeats: int = 1
    eval_batch_size: int = 256
    num_workers: int = 0

    def __post_init__(self) -> None:
        for key in ("batch_size", "accumulate", "repeats", "eval_batch_size"):
            _require(getattr(self, key) > 0, f"loader.{key}", getattr(self, key), "1 or more")
        _require(self.num_workers >= 0, "loader.num_workers", self.num_workers, "0 or more")


@dataclass(frozen=True)
class TrainerOptions:
    """Length, precision and bookkeeping of a run.

    Args:
        max_epochs: passes over the training data; null: only `max_steps` ends the run.
        max_steps: optimizer steps; null: only `max_epochs` ends the run.
        seed: of the initial weights, the order of the data and dropout.
        precision: as in Lightning Fabric: 32-true, bf16-mixed, 16-mixed, 64-true, ...
        accelerator: auto, cpu, cuda or mps.
        start_from: trained weights to begin with: a run folder, a .safetensors file, or a .pth file
            that holds tensors only; null: the model's own initial weights.
        ema_decay: decay of a moving average of the weights, which is evaluated as eval_ema/... and
            saved as model_ema.safetensors; null: none is kept.
        eval_every: steps between evaluations; null: after each epoch.
        eval_batches: evaluate on at most so many batches; null: on all.
        patience: evaluations without a better value of the task's monitored metric after which
            the run stops early; 0: it never does.
        checkpoint_every: steps between checkpoints (there is always one after each epoch).
        log_every: steps between logged training losses.
    """

    max_epochs: int | None = 5
    max_steps: int | None = None
    seed: int = 0
    precision: str = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    start_from: str | None = None
    ema_decay: float | None = None
    eval_every: int | None = None
    eval_batches: int | None = None
    patience: int = 0
    checkpoint_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise ConfigError(
                "trainer.max_epochs and trainer.max_steps are both null: set one of them"
            )
        for key in ("max_epochs", "max_steps", "eval_every", "eval_batches"):
            value = getattr(self, key)
            _require(value is None or value > 0, f"trainer.{key}", value, "null or 1 or more")
        decay = self.ema_decay
        fine = decay is None or 0 <= decay < 1
        _require(fine, "trainer.ema_decay", decay, "null or a number in [0, 1)")
        _require(self.patience >= 0, "trainer.patience", self.patience, "0 or more")
        for key in ("checkpoint_every", "log_every"):
            _require(getattr(self, key) > 0, f"trainer.{key}", getattr(self, key), "1 or more")


def _require(fine: bool, key: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{key} is {value!r}, expected {expected}")
