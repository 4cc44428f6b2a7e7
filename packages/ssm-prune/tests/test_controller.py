"""The host without the engine: exact sparsity, zeros that stay, vetoes, resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_prune import (
    MasksChanged,
    MethodSpec,
    NotPrunedError,
    Problem,
    Proposal,
    ProposalError,
    PruneContext,
    PruneError,
    PruneOptions,
    Pruner,
    hookimpl,
)
from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.steps import RunLength
from ssm_prune.testing import STEPS, ToyRun, check_resume, check_zeros_stay

DYNAMIC = MethodSpec("dynamic-cosine", DynamicCosine, "")


def make(
    method: type[Pruner], plugins: PrunePlugins | None = None, **options: Any
) -> tuple[ToyRun, Controller]:
    settings = {"begin": 3, "end": 21, "every": 1, "sparsity": 0.6, **options}
    run = ToyRun(MethodSpec("test-method", method, ""), settings, plugins=plugins)
    assert run.controller is not None
    return run, run.controller


def cosine_target(step: int, begin: int, end: int, sparsity: float) -> float:
    """The closed form, written down again on purpose."""
    u = min(1.0, max(0.0, (step - begin) / (end - begin)))
    return sparsity * (1 - math.cos(math.pi * u)) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("every", [1, 4])
def test_each_step_has_exactly_the_zeros_of_the_closed_form(
    tied_model: Callable[[torch.dtype], nn.Sequential], dtype: torch.dtype, every: int
) -> None:
    model = tied_model(dtype)
    size, begin, end, sparsity = model[1].weight.numel(), 2, 20, 0.77
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = PruneOptions(sparsity=sparsity, begin=begin, end=end, every=every)
    plugins = PrunePlugins(load_entry_points=False)
    controller = Controller(Method(DYNAMIC, "ssm-prune", "0"), options, plugins)
    controller.start(model, optimizer, RunLength(25, 5), seed=0)
    x = torch.randn(6, 4).to(dtype)
    expected = 0
    for step in range(1, 26):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        controller.before_optimizer_step(step - 1)
        optimizer.step()
        controller.after_optimizer_step(step)
        if begin <= step <= end and ((step - begin) % every == 0 or step == end):
            expected = round(cosine_target(step, begin, end, sparsity) * size)
        # where the mask is True the weight is zero; live weights may be zero by chance
        dropped = ~controller.ctx.mask("1.weight")
        assert int(dropped.sum()) == expected
        assert not model[1].weight[dropped].any()
    assert expected == round(sparsity * size)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero_in_weights_and_optimizer(optimizer: str) -> None:
    check_zeros_stay(DYNAMIC, optimizer=optimizer)
    run = ToyRun(DYNAMIC, {"begin": 0, "end": 20, "sparsity": 0.6}, optimizer)
    for _ in range(STEPS):
        run.step()
    slots = [name for name in run.tensors() if name.endswith(" in_proj.weight")]
    assert len(slots) == {"sgd": 2, "adamw": 4}[optimizer]  # the check above has seen them


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_without_enforcement_the_same_check_fails(
    monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    monkeypatch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
    with pytest.raises(AssertionError, match="not zero under the mask"):
        check_zeros_stay(DYNAMIC, optimizer=optimizer)


def test_masks_only_grow_and_the_smallest_weights_go_first() -> None:
    run, controller = make(DynamicCosine)
    before = {n: controller.store.mask(n) for n in controller.store.shapes}
    for _ in range(STEPS):
        run.step()
        for name, old in before.items():
            new = controller.store.mask(name)
            assert not (new & ~old).any()
            before[name] = new
    assert controller.achieved == pytest.approx(0.6, abs=0.002)
    assert [u["step"] for u in controller.history] == list(range(3, 22))


class Once(Pruner):
    """Proposes `masks` at every step."""

    masks: Mapping[str, Tensor]

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        return Proposal(self.masks)


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("A_log", torch.zeros(11, dtype=torch.bool), "A_log may not be pruned: state matrix"),
        ("D", torch.zeros(11, dtype=torch.bool), "D may not be pruned: skip connection"),
        ("dt_proj.bias", torch.zeros(11, dtype=torch.bool), "may not be pruned: step size"),
        ("norm.weight", torch.zeros(9, dtype=torch.bool), "may not be pruned: normalisation"),
        ("head.weight", torch.zeros(3, 9, dtype=torch.bool), "last layer of the model"),
        ("in_prj.weight", torch.zeros(22, 9, dtype=torch.bool), "there is no such parameter"),
        ("in_proj.weight", torch.zeros(22, 9), r"torch.float32 \(22, 9\), expected torch.bool"),
        ("in_proj.weight", torch.zeros(9, 22, dtype=torch.bool), r"expected torch.bool \(22, 9\)"),
        ("x_proj.weight", torch.zeros(7, 11, dtype=torch.bool), "77 of 77 .* at most 38: makes B"),
    ],
)
def test_a_hostile_proposal_is_vetoed_with_the_reason(
    name: str, mask: Tensor, message: str
) -> None:
    run, controller = make(type("Hostile", (Once,), {"masks": {name: mask}}))
    with pytest.raises(ProposalError, match=message) as error:
        run.step()
    assert "'test-method' of conformance 0, step 1" in str(error.value)
    assert controller.store.total_pruned == 0
    assert not any((p == 0).all() for n, p in run.model.named_parameters() if n.endswith("weight"))


def test_a_check_of_a_plugin_skips_the_update_and_is_recorded() -> None:
    class Guard:
        @hookimpl
        def ssm_prune_check(self, proposal: Proposal, ctx: PruneContext) -> list[Problem]:
            return [Problem("not on odd steps")] if ctx.step % 2 else []

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Guard(), "guard", "1")
    run, controller = make(DynamicCosine, plugins)
    for _ in range(STEPS):
        run.step()
    assert [u["step"] for u in controller.history] == list(range(4, 21, 2))
    assert controller.vetoes[0] == {"step": 3, "problems": ["not on odd steps"]}
    assert [v["step"] for v in controller.vetoes] == list(range(3, 22, 2))


def test_a_blocked_ramp_is_an_error_that_says_what_blocked_it() -> None:
    class Block:
        @hookimpl
        def ssm_prune_check(self) -> list[Problem]:
            return [Problem("never")]

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Block(), "block", "1")
    run, controller = make(DynamicCosine, plugins, sparsity=0.5)
    for _ in range(STEPS):
        run.step()
    controller.check_reached(20)  # stopped before the end of the ramp: nothing promised
    with pytest.raises(NotPrunedError, match=r"removed 0\.0%.*19 proposals.*step 21: never"):
        controller.check_reached(STEPS)


@pytest.mark.parametrize(("fraction", "fails"), [(0.485, True), (0.495, False)])
def test_one_percent_less_is_tolerated(fraction: float, fails: bool) -> None:
    class Less(Pruner):
        def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
            scores = {name: weight.abs() for name, weight in ctx.prunable()}
            return ctx.prune_lowest(scores, fraction) if ctx.due else None

    run, controller = make(Less, sparsity=0.5)
    for _ in range(STEPS):
        run.step()
    assert controller.achieved == pytest.approx(fraction, abs=0.003)
    if fails:
        with pytest.raises(NotPrunedError, match=r"asked to remove 50\.0%"):
            controller.check_reached(STEPS)
    else:
        controller.check_reached(STEPS)


def test_observers_hear_of_every_change() -> None:
    heard = []

    class Observer:
        @hookimpl
        def ssm_prune_masks_changed(self, event: MasksChanged) -> None:
            heard.append(event)

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Observer(), "observer", "1")
    run, controller = make(DynamicCosine, plugins)
    for _ in range(STEPS):
        run.step()
    assert [e.step for e in heard] == list(range(3, 22))
    assert heard[-1] == MasksChanged(
        21, 0.6, round(0.6 * controller.store.total), controller.store.total
    )


def test_a_plugin_offers_a_ramp() -> None:
    class Linear:
        @hookimpl
        def ssm_prune_schedules(self) -> dict[str, Any]:
            return {"linear": lambda u: u}

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Linear(), "linear", "1")
    run, controller = make(DynamicCosine, plugins, ramp="linear")
    for _ in range(12):
        run.step()
    assert controller.achieved == pytest.approx(0.3, abs=0.002)


def test_what_cannot_be_reached_is_refused_before_training() -> None:
    with pytest.raises(
        PruneError, match=r"sparsity is 0\.99, expected at most 0\.\d+ .*half at most"
    ):
        make(DynamicCosine, sparsity=0.99)


def test_a_model_with_nothing_to_prune_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    controller = Controller(
        Method(DYNAMIC, "x", "0"), PruneOptions(), PrunePlugins(load_entry_points=False)
    )
    with pytest.raises(PruneError, match=r"nothing to prune: 0\.weight \(first layer"):
        controller.start(model, torch.optim.SGD(model.parameters()), RunLength(10, 10), 0)


class Random(Pruner):
    """Removes weights at random: needs the generator of the context, and its state on resume."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        ctx.log("random", 1.5)
        return ctx.prune_lowest(
            {name: torch.rand(p.shape, generator=ctx.rng) for name, p in ctx.prunable()}
        )


def test_the_generator_is_seeded_and_saved() -> None:
    check_resume(MethodSpec("random", Random, ""))
    one, two = make(Random), make(Random)
    for _ in range(STEPS):
        one[0].step(), two[0].step()
    assert torch.equal(one[1].ctx.mask("in_proj.weight"), two[1].ctx.mask("in_proj.weight"))


def test_logged_numbers_reach_the_metrics() -> None:
    _, controller = make(Random)
    assert "prune/random" not in controller.after_optimizer_step(2)
    assert controller.after_optimizer_step(4)["prune/random"] == 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provider": "acme-prune 9"}, "'test-method' of acme-prune 9, this is .* install acme-"),
        ({"method": "other"}, "pruned with 'other' of conformance 0"),
        ({"settings": {"sparsity": 0.1}}, "was pruned with"),
    ],
)
def test_a_checkpoint_of_another_method_version_or_option_is_refused(
    change: dict[str, Any], message: str
) -> None:
    _, controller = make(DynamicCosine)
    state = controller.state_dict() | change
    with pytest.raises(CheckpointError, match=message):
        controller.load_state_dict(state)
