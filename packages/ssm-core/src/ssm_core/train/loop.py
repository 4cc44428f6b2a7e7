"""The training loop."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ssm_core.train.batches import batch_parts
from ssm_core.train.evaluate import evaluate
from ssm_core.train.fabric import unscale
from ssm_core.train.progress import ProgressBar
from ssm_core.train.recorder import Recorder
from ssm_core.train.run import Run


def train(run: Run, recorder: Recorder) -> None:
    """Train until `run.total_steps` or a reason to stop, with a checkpoint at every end.

    The order within a step is part of the plugin API: backward, `ssm_backward_end`, clipping, the
    optimizer, the moving average, `ssm_step_end`, the schedule, then logs and checkpoint. A batch
    whose float16 gradients overflow is used up without a step, and no hook sees it.
    """
    bar = ProgressBar(run.total_steps, run.step, run.fabric.is_global_zero)
    options = run.config.trainer
    with _StopOnSignal(run):
        while _goes_on(run, recorder):
            run.train_loader.sampler.epoch = run.epoch  # type: ignore[attr-defined]
            if run.loader_state is not None:
                run.train_loader.load_state_dict(run.loader_state)  # type: ignore[attr-defined]
                run.loader_state = None
            run.hooks.ssm_epoch_start(run=run)
            began = time.perf_counter()
            in_epoch = run.batches_of_epoch
            first_step = run.step
            for batch in run.train_loader:
                metrics = _step(run, batch, recorder)
                in_epoch += 1
                if metrics is None:
                    continue
                run.log(metrics)
                bar.update(run.step, run.epoch, recorder.shown_loss)
                if options.eval_every and run.step % options.eval_every == 0:
                    _evaluate(run, bar)
                if run.stop_reason is not None or run.step >= run.total_steps:
                    break
                if run.step % options.checkpoint_every == 0 and in_epoch < run.steps_per_epoch:
                    recorder.save(run)
            if in_epoch >= run.steps_per_epoch:
                run.epoch += 1
                run.hooks.ssm_epoch_end(run=run)
                seconds = time.perf_counter() - began
                run.log({"time/step_s": seconds / max(1, run.step - first_step)})
            if run.stop_reason is None and (not options.eval_every or _is_last(run)):
                _evaluate(run, bar)
            recorder.save(run)
    bar.close()


def _goes_on(run: Run, recorder: Recorder) -> bool:
    """Whether there are steps to do; after the last one plugins may begin another level."""
    if run.stop_reason is not None:
        return False
    if run.step < run.total_steps:
        return True
    if not run.hooks.ssm_steps_done(run=run):
        return False
    # a kill leaves either the end of the old level or the beginning of the new one
    recorder.save(run)
    return True


def _is_last(run: Run) -> bool:
    every = run.config.trainer.eval_every
    return run.step >= run.total_steps and (not every or run.step % every != 0)


def _step(run: Run, batch: Any, recorder: Recorder) -> dict[str, float] | None:
    """One optimizer step; returns what is to be logged, or None if there was no step."""
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss = _backward(run, batch)
    if not unscale(run.fabric, run.optimizer):
        run.optimizer.step()  # changes no weight, but lowers the factor of the loss
        run.skipped += 1
        return None
    run.hooks.ssm_backward_end(run=run)
    clip = run.config.optim.grad_clip
    if clip is not None:
        clip_grad_norm_(run.fabric.strategy.precision.main_params(run.optimizer), clip)
    run.optimizer.step()
    run.step += 1
    if run.ema is not None:
        run.ema.update()  # before the hook: what it does to weights, it can do to the average
    metrics: dict[str, float] = {}
    run.hooks.ssm_step_end(run=run, metrics=metrics)
    lr = float(run.optimizer.param_groups[0]["lr"])
    run.scheduler.step()
    return recorder.step_metrics(run, loss, lr, metrics)


def _backward(run: Run, batch: Any) -> Tensor:
    """Add up the gradients of a batch, part by part; returns its mean loss."""
    parts = batch_parts(batch, run.config.loader.accumulate)
    if len(parts) == 1:
        return _backward_part(run, batch, 1.0)
    counts = [run.task.count(part) for part in parts]
    total = torch.zeros((), device=run.fabric.device)
    for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
        last = i == len(parts) - 1
        with run.fabric.no_backward_sync(run.model, enabled=not last):  # type: ignore[arg-type]
            total += _backward_part(run, part, count / max(1, sum(counts)))
    return total


def _backward_part(run: Run, part: Any, share: float) -> Tensor:
    with run.fabric.autocast():
        loss, _ = run.task.loss(run.model, run.fabric.to_device(part))
    run.fabric.backward(loss * share if share != 1 else loss)
    return loss.detach() * share


def _evaluate(run: Run, bar: ProgressBar) -> None:
    metrics = evaluate(run)
    run.hooks.ssm_eval_end(run=run, metrics=metrics)
    run.log(metrics)
    bar.metrics(run.step / run.steps_per_epoch, metrics)
    reason = run.hooks.ssm_should_stop(run=run, metrics=metrics)
    if reason:
        run.stop_reason = reason
        bar.say(f"stopped: {reason}")


class _StopOnSignal:
    """The first Ctrl-C (or SIGTERM) ends the run after the current step; the second at once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.old: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.old[number] = signal.signal(number, self._stop)
            except ValueError:  # not the main thread: the program around it handles signals
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.run.stop_reason is not None:
            raise KeyboardInterrupt
        self.run.stop_reason = "interrupted"
