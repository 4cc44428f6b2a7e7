"""Checks for authors of pruning methods: does a method keep the promises of the host?

    from ssm_prune.testing import conformance

    def test_conformance():
        conformance(MethodSpec("mine", Mine, "what it does", MyOptions))

Everything runs in plain PyTorch on a toy model within seconds. A failed check is an
`AssertionError` that says what was expected.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ssm_core.train.checkpoint import load_state, save_state
from ssm_prune.pruner import MethodSpec
from ssm_prune.toy_run import STEPS, ToyModel, ToyRun

__all__ = [
    "STEPS",
    "ToyModel",
    "ToyRun",
    "check_dense_parity",
    "check_end",
    "check_resume",
    "check_schedule",
    "check_zeros_stay",
    "conformance",
]

SCHEDULE: Mapping[str, Any] = {"begin": 3, "end": 21, "every": 2, "sparsity": 0.6}
OPTIMIZERS = ("sgd", "adamw")


def conformance(spec: MethodSpec, options: Mapping[str, Any] | None = None) -> None:
    """Run all checks.

    Args:
        spec: the method as a plugin offers it.
        options: values for the method's own options, where the defaults do not suit a toy model.
    Raises:
        AssertionError: a promise is broken; says which.
    """
    (check_schedule if spec.cls.follows_schedule else check_end)(spec, options)
    for optimizer in OPTIMIZERS:
        check_zeros_stay(spec, options, optimizer)
        check_dense_parity(spec, options, optimizer)
    check_resume(spec, options)


def check_schedule(spec: MethodSpec, options: Mapping[str, Any] | None = None) -> None:
    """After every step, exactly round(target * N) weights are zero.

    Not counted are weights that came back and are still at zero, where they start.
    """
    run = ToyRun(spec, toy_options(spec, options))
    assert run.controller is not None
    schedule, store = run.controller.schedule, run.controller.store
    total, expected = store.total, 0
    back = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in store.shapes.items()}
    for _ in range(STEPS):
        before = {name: store.mask(name) for name in store.shapes}
        run.step()
        if schedule.due(run.steps):
            expected = round(schedule.target(run.steps) * total)
        zeros = 0
        for name, p in run.controller.parameters():
            back[name] = (back[name] | ~before[name]) & store.mask(name) & (p == 0)
            zeros += int(((p == 0) & ~back[name]).sum())
        assert zeros == expected, (
            f"{spec.name}: {zeros} of {total} weights are zero after step {run.steps}, "
            f"expected {expected}"
        )


def check_end(spec: MethodSpec, options: Mapping[str, Any] | None = None) -> None:
    """The end of the run has exactly round(sparsity * N) weights at zero, no step has more.

    For methods that decide themselves when masks change. At every step it is what the method says
    itself: `Pruner.promised`.
    """
    run = ToyRun(spec, toy_options(spec, options))
    assert run.controller is not None
    controller = run.controller
    asked, total = controller.schedule.sparsity, controller.store.total
    while run.goes_on():
        run.step()
        promised = round(controller.pruner.promised(controller.ctx) * total)
        zeros = sum(int((p == 0).sum()) for _, p in controller.parameters())
        assert zeros == promised, (
            f"{spec.name}: {zeros} of {total} weights are zero after step {run.steps} of level "
            f"{controller.ctx.level}, expected {promised} as it says"
        )
    assert zeros == round(asked * total), (
        f"{spec.name}: {zeros} of {total} weights are zero in the end, expected "
        f"{round(asked * total)}: choose options with which the toy run of {STEPS} steps gets there"
    )


def check_zeros_stay(
    spec: MethodSpec, options: Mapping[str, Any] | None = None, optimizer: str = "adamw"
) -> None:
    """After every step, removed weights and their optimizer slots are +0, bit for bit."""
    run = ToyRun(spec, toy_options(spec, options), optimizer)
    assert run.controller is not None
    while run.goes_on():
        run.step()
        tensors = run.tensors()
        for name, shape in run.controller.store.shapes.items():
            removed = ~run.controller.store.mask(name)
            for place, value in tensors.items():
                if place.endswith(f" {name}") and value.shape == shape:
                    bits = value[removed].view(torch.int32)
                    assert not bits.any(), (
                        f"{spec.name}: {place} is not zero under the mask after step {run.steps}"
                    )


def check_dense_parity(
    spec: MethodSpec, options: Mapping[str, Any] | None = None, optimizer: str = "adamw"
) -> None:
    """Sparsity 0 trains exactly as without the method: same losses and weights, bit for bit.

    A method whose pattern decides the sparsity has no 0: it is given `begin` after the steps
    compared, up to which it must not be felt either.
    """
    plain = ToyRun(None, {}, optimizer)
    off: dict[str, Any] = {"begin": STEPS}
    if "sparsity" in option_names(spec):
        off = dict.fromkeys(option_names(spec) & {"sparsity", "initial_sparsity"}, 0.0)
    pruned = ToyRun(spec, toy_options(spec, options) | off, optimizer)
    for _ in range(STEPS - 1):
        assert plain.step() == pruned.step(), f"{spec.name}: sparsity 0 changes the loss"
    _assert_equal(spec, plain, pruned, "sparsity 0 changes")


def check_resume(spec: MethodSpec, options: Mapping[str, Any] | None = None) -> None:
    """A run stopped before, on and after mask updates goes on exactly, through a file.

    Also at the end of a level, at the beginning of the next, and in the last.
    """
    settings = toy_options(spec, options)
    whole = ToyRun(spec, settings)
    whole.finish()
    losses = whole.losses
    later = {STEPS, STEPS + 1, len(losses) - 1} if len(losses) > STEPS else set()
    for stop in (0, 2, 3, 8, 9, 21, 25, *sorted(later)):
        first = ToyRun(spec, settings)
        while len(first.losses) < stop and first.goes_on():
            first.step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            save_state(path, first.state_dict())
            second = ToyRun(spec, settings)
            second.load_state_dict(load_state(path))
        second.finish()
        assert second.losses == losses[stop:], (
            f"{spec.name}: other losses after a stop at step {stop}"
        )
        _assert_equal(spec, whole, second, f"a stop at step {stop} changes")


def option_names(spec: MethodSpec) -> set[str]:
    """The options that can be set; a method with a fixed pattern has no `sparsity`, for example."""
    return {field.name for field in dataclasses.fields(spec.options) if field.init}


def toy_options(spec: MethodSpec, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`SCHEDULE`, as far as the method has such options, and `options` on top."""
    known = option_names(spec)
    return {k: v for k, v in SCHEDULE.items() if k in known} | dict(options or {})


def _assert_equal(spec: MethodSpec, one: ToyRun, other: ToyRun, what: str) -> None:
    ours, theirs = one.tensors(), other.tensors()
    assert ours.keys() == theirs.keys(), f"{spec.name}: {what} which tensors there are"
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), f"{spec.name}: {what} {name}"
