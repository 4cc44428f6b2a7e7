"""Put a run together, train it and leave a complete run folder behind."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssm_core.errors import CheckpointError, DataError
from ssm_core.official.tensors import listed
from ssm_core.plugins import PluginHost
from ssm_core.sizes import Sizes, replay_sizes
from ssm_core.train import folder as run_folder
from ssm_core.train.batches import eval_loader, train_loader
from ssm_core.train.checkpoint import load_state
from ssm_core.train.ema import MovingAverage
from ssm_core.train.fabric import make_fabric
from ssm_core.train.loggers import read_metrics
from ssm_core.train.loop import train
from ssm_core.train.optim import make_optimizer, make_scheduler
from ssm_core.train.patience import EarlyStopping
from ssm_core.train.recorder import Recorder
from ssm_core.train.resolve import ResolvedConfig
from ssm_core.train.restore import weights_metadata
from ssm_core.train.run import Run
from ssm_core.train.start_from import sizes_of, start_from


def fit(host: PluginHost, config: ResolvedConfig, folder: Path, resume: bool) -> Run:
    """Train a run in `folder`, from its checkpoint if `resume` and there is one.

    Raises:
        CheckpointError: the checkpoint, or what `trainer.start_from` names, is damaged or of
            another model; nothing is touched.
    """
    checkpoint = folder / run_folder.LAST
    state = load_state(checkpoint) if resume and checkpoint.is_file() else None
    sizes = state.get("sizes", []) if state is not None else _sizes_to_start_from(config)
    run = prepare(host, config, folder, sizes)
    if state is None and config.trainer.start_from is not None:
        _start_from(run, Path(config.trainer.start_from))
    zero = run.fabric.is_global_zero
    error: BaseException | None = None
    recorder: Recorder | None = None
    began = time.monotonic()
    try:
        run.hooks.ssm_run_start(run=run)
        if config.trainer.ema_decay is not None:
            run.ema = MovingAverage(run.module, config.trainer.ema_decay)
        recorder = _recorder(run, state, checkpoint)
        if zero:
            run_folder.write_static(folder, config.to_yaml(), run.info)
            run_folder.write_status(
                folder, "running", step=run.step, process=os.getpid(), host=platform.node()
            )
        train(run, recorder)
    except BaseException as caught:
        error = caught
        raise
    finally:
        outcome = _outcome(run, error)
        if recorder is not None:
            finished = outcome == "finished"
            recorder.close(weights_metadata(run) if finished else None)
        try:
            run.hooks.ssm_run_end(run=run, error=error)
        except BaseException:
            outcome = "failed"
            raise
        finally:
            if zero and (folder / "config.yaml").is_file():
                seconds = round(time.monotonic() - began, 3)
                run_folder.write_status(folder, outcome, **_figures(run), seconds=seconds)
    return run


def prepare(
    host: PluginHost, config: ResolvedConfig, folder: Path, sizes: Sequence[Sizes] = ()
) -> Run:
    """Build data, model, optimizer and extensions of a run; nothing is written.

    Args:
        sizes: what was done to the sizes of the model (`ssm_core.sizes.applied_sizes`).
    """
    options = config.trainer
    fabric = make_fabric(options.accelerator, options.precision)
    fabric.launch()
    torch.manual_seed(options.seed)
    with fabric.rank_zero_first(local=True):  # so that only one process per machine downloads
        data = config.specs["data"].build(config.typed["data"])
    task = config.specs["task"].build(config.typed["task"], data.info)
    module = replay_sizes(config.specs["model"].build(config.typed["model"], data.info), sizes)
    torch.manual_seed(options.seed + fabric.global_rank)  # dropout differs between processes
    extensions = [
        spec.build(config.typed[section])
        for section, spec in config.specs.items()
        if section in host.extension_sections
    ]
    if options.patience:
        extensions.append(EarlyStopping(options.patience))
    module = module.to(fabric.device)
    optimizer = make_optimizer(module, config.optim)
    model, optimizer = fabric.setup(module, optimizer)
    world, rank = fabric.world_size, fabric.global_rank
    loader = train_loader(data, config.loader, options.seed, rank, world)
    steps_per_epoch = len(loader)
    if steps_per_epoch == 0:
        raise DataError(f"data {config.specs['data'].name!r} has no training examples")
    total = _total_steps(options.max_epochs, options.max_steps, steps_per_epoch)
    return Run(
        config=config,
        folder=folder,
        fabric=fabric,
        info=data.info,
        task=task,
        module=module,
        model=model,
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer, config.optim, total),
        train_loader=loader,
        eval_loader=eval_loader(data, config.loader, rank, world),
        hooks=host.run_manager(extensions).hook,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
    )


def _sizes_to_start_from(config: ResolvedConfig) -> list[Sizes]:
    path = config.trainer.start_from
    return [] if path is None else sizes_of(Path(path))


def _start_from(run: Run, path: Path) -> None:
    """Load the weights to begin with, and say what has to be trained from nothing."""
    untrained = start_from(run.module, path)
    if run.fabric.is_global_zero:
        rest = f"; untrained: {listed(untrained)}" if untrained else ""
        print(f"starting from {path}{rest}", file=sys.stderr)


def _recorder(run: Run, state: Mapping[str, Any] | None, checkpoint: Path) -> Recorder:
    try:
        return Recorder(run, state)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: does not fit this run: {reason}") from error


def _total_steps(max_epochs: int | None, max_steps: int | None, steps_per_epoch: int) -> int:
    by_epochs = max_epochs * steps_per_epoch if max_epochs is not None else None
    return min(n for n in (by_epochs, max_steps) if n is not None)


def _outcome(run: Run, error: BaseException | None) -> str:
    if isinstance(error, KeyboardInterrupt) or run.stop_reason == "interrupted":
        return "interrupted"
    return "failed" if error is not None else "finished"


def _figures(run: Run) -> dict[str, Any]:
    """The last value of every metric, for tables."""
    curves = read_metrics(run.folder / "metrics.csv")
    return {
        "step": run.step,
        "epoch": run.epoch,
        "stop_reason": run.stop_reason,
        "parameters": sum(p.numel() for p in run.module.parameters()),
        "steps_per_epoch": run.steps_per_epoch,
        "monitor": run.task.monitor,
        "device": _device_name(run.fabric.device),
        "metrics": {name: points[-1][1] for name, points in curves.items()},
        "step_s": _median([value for _, value in curves.get("time/step_s", [])]),
    }


def _device_name(device: torch.device) -> str:
    """What trained: the name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
