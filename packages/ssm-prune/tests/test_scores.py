"""Scores by name: built-in ones, a plugin's, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError, DuplicateNameError, UnknownNameError
from ssm_prune import MethodSpec, ProposalError, PruneContext, PruneError, hookimpl
from ssm_prune.loader import PrunePlugins
from ssm_prune.methods import ssm_prune_methods
from ssm_prune.methods.magnitude import Magnitude
from ssm_prune.options import OneShotOptions
from ssm_prune.scores import SCORES
from ssm_prune.testing import STEPS, ToyRun

SPECS = {spec.name: spec for spec in ssm_prune_methods()}


def largest(ctx: PruneContext, name: str, parameter: nn.Parameter) -> Tensor:
    """The contrary of magnitude."""
    return -parameter.abs()


class Offers:
    """A plugin with one score."""

    def __init__(self, name: str, score: Callable[..., Tensor] = largest) -> None:
        self.offer = {name: score}

    @hookimpl
    def ssm_prune_scores(self) -> dict[str, Any]:
        return self.offer


def with_score(*plugins: Offers) -> PrunePlugins:
    found = PrunePlugins(load_entry_points=False)
    for number, plugin in enumerate(plugins):
        found.register(plugin, f"acme-{number}", "1")
    return found


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("magnitude", {"begin": 5}),
        ("dynamic-cosine", {"begin": 5, "end": 5}),
        ("n:m", {"begin": 5, "n": 6, "m": 11}),
    ],
)
def test_a_score_of_a_plugin_decides(method: str, options: dict[str, Any]) -> None:
    masks = []
    for score in ("magnitude", "largest"):
        spec = SPECS[method]
        run = ToyRun(spec, {**options, "score": score}, plugins=with_score(Offers("largest")))
        assert run.controller is not None
        for _ in range(4):
            run.step()
        before = dict(run.model.named_parameters())["x_proj.weight"].detach().abs().clone()
        for _ in range(STEPS - 4):
            run.step()
        mask = run.controller.ctx.mask("x_proj.weight")
        assert 0 < int((~mask).sum()) < mask.numel()
        masks.append((mask, before))
    kept_small = masks[1][1][masks[1][0]].mean()
    kept_large = masks[0][1][masks[0][0]].mean()
    assert kept_small < kept_large


@pytest.mark.parametrize("method", ["magnitude", "dynamic-cosine", "n:m"])
def test_an_unknown_score_names_the_nearest(method: str) -> None:
    options = {"n": 6, "m": 11} if method == "n:m" else {}
    with pytest.raises(UnknownNameError, match=r"prune\.score 'magnitud'.*'magnitude'"):
        ToyRun(SPECS[method], {**options, "score": "magnitud"})


def test_the_same_name_twice_is_refused_with_both_owners() -> None:
    with pytest.raises(DuplicateNameError, match=r"score 'mine' is offered by acme-0 1 and by "):
        with_score(Offers("mine"), Offers("mine"))
    with pytest.raises(DuplicateNameError, match="score 'magnitude' is offered by ssm-prune and"):
        with_score(Offers("magnitude"))
    with_score(Offers("cosine"))  # the name of a ramp is free for a score


def test_a_score_of_the_wrong_shape_is_named() -> None:
    plugins = with_score(Offers("rows", lambda ctx, name, p: p.abs().sum(dim=1)))
    run = ToyRun(SPECS["magnitude"], {"begin": 1, "score": "rows"}, plugins=plugins)
    with pytest.raises(ProposalError, match=r"scores hold \(22,\) for in_proj\.weight, expected"):
        run.step()


def test_built_in_scores() -> None:
    assert set(SCORES) == {"magnitude", "random"}
    run = ToyRun(SPECS["random"], {"begin": 1, "end": 9})
    assert run.controller is not None
    ctx, weight = run.controller.ctx, run.model.in_proj.weight
    assert torch.equal(SCORES["magnitude"](ctx, "in_proj.weight", weight), weight.abs())
    state = ctx.rng.get_state()
    first = SCORES["random"](ctx, "in_proj.weight", weight)
    second = SCORES["random"](ctx, "in_proj.weight", weight)
    assert first.shape == weight.shape
    assert not torch.equal(first, second)
    ctx.rng.set_state(state)
    assert torch.equal(SCORES["random"](ctx, "in_proj.weight", weight), first)


def test_a_one_shot_method_has_no_end() -> None:
    with pytest.raises(TypeError, match="end"):
        SPECS["magnitude"].options(end="75%")  # type: ignore[call-arg]
    assert SPECS["magnitude"].options(begin="2ep").end == "2ep"
    with pytest.raises(ConfigError, match=r"prune\.sparsity"):
        SPECS["magnitude"].options(sparsity=1.0)


def test_a_tensor_that_a_method_leaves_out_stays_whole_and_the_others_give_more() -> None:
    class LeavesOut(Magnitude):
        def setup(self, ctx: PruneContext) -> None:
            super().setup(ctx)
            ctx.leave_out("in_proj.weight", "for once")

    spec = MethodSpec("leaves-out", LeavesOut, "", OneShotOptions)
    run = ToyRun(spec, {"begin": 2, "sparsity": 0.3})
    assert run.controller is not None
    for _ in range(3):
        run.step()
    store = run.controller.store
    assert store.pruned("in_proj.weight") == 0
    assert store.total_pruned == round(0.3 * store.total)
    assert run.controller.ctx.left_out == {"in_proj.weight": "for once"}
    with pytest.raises(PruneError, match=r"sparsity is 0\.5, expected at most 0\.\d+"):
        ToyRun(spec, {"begin": 2, "sparsity": 0.5})
