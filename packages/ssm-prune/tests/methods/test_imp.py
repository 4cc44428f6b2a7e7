"""How much each level removes, and options that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_prune import MethodSpec, NotPrunedError, Problem, ProposalError, Pruner, hookimpl
from ssm_prune.loader import PrunePlugins
from ssm_prune.methods.imp import Imp, ImpOptions, level_counts
from ssm_prune.pruner import Proposal, Rewind
from ssm_prune.testing import STEPS, ToyRun

IMP = MethodSpec("imp", Imp, "", ImpOptions)


@given(
    total=st.integers(1, 10_000_000),
    sparsity=st.floats(0.01, 0.99),
    fraction=st.floats(0.05, 0.9),
)
def test_each_level_removes_a_fraction_of_the_survivors(
    total: int, sparsity: float, fraction: float
) -> None:
    counts = level_counts(ImpOptions(sparsity=sparsity, fraction=fraction), total)
    survivors = total
    for count in counts[1:-1]:
        survivors -= round(fraction * survivors)
        assert count == min(total - survivors, round(sparsity * total))
    assert counts[0] == 0
    assert counts[-1] == round(sparsity * total)
    assert counts == sorted(counts)
    levels = len(counts) - 1
    assert 1 - (1 - fraction) ** levels >= sparsity - 1e-6
    assert levels == 1 or 1 - (1 - fraction) ** (levels - 1) < sparsity


@pytest.mark.parametrize(
    ("sparsity", "levels"), [(0.2, 1), (0.36, 2), (0.488, 3), (0.8, 8), (0.95, 14), (0.0, 0)]
)
def test_levels_of_a_fifth(sparsity: float, levels: int) -> None:
    assert len(level_counts(ImpOptions(sparsity=sparsity), 1000)) == levels + 1


def test_levels_given_are_alike() -> None:
    counts = level_counts(ImpOptions(sparsity=0.75, levels=2), 1000)
    assert counts == [0, 500, 750]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, r"prune.fraction is 0.0, expected a number between 0 and 1"),
        ({"levels": 0}, r"prune.levels is 0, expected 1 or more"),
        ({"levels": 3, "fraction": 0.2}, "prune.fraction and prune.levels are both set"),
        ({"rewind": "init", "rewind_step": 5}, "prune.rewind_step is 5 with prune.rewind init"),
        ({"reinit": "random"}, "prune.reinit is random with prune.rewind k, expected rewind init"),
        ({"rewind": "none", "rewind_optimizer": "restore"}, "restore with prune.rewind none"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        ImpOptions(**options)
    assert "\n" not in str(error.value)


def test_a_step_at_the_end_of_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rewind_step is 100% = step 30, expected one before"):
        ToyRun(IMP, {"rewind_step": "100%", "sparsity": 0.5})


@pytest.mark.parametrize(
    ("options", "step"),
    [({}, round(0.05 * STEPS)), ({"rewind": "init"}, 0), ({"rewind": "none"}, STEPS * 3 // 4)],
)
def test_where_levels_begin(options: dict[str, Any], step: int) -> None:
    run = ToyRun(IMP, {"sparsity": 0.5, "levels": 1, **options})
    assert run.controller is not None
    assert run.controller.points == {step}


def test_a_check_that_stops_a_level_ends_the_run_with_its_reason() -> None:
    class Guard:
        @hookimpl
        def ssm_prune_check(self, ctx: Any) -> list[Problem]:
            return [Problem("not twice")] if ctx.level == 1 else []

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Guard(), "guard", "1")
    run = ToyRun(IMP, {"sparsity": 0.5, "levels": 2, "rewind_step": 20}, plugins=plugins)
    with pytest.raises(NotPrunedError, match=r"'imp' cannot begin level 2: 1 prop.* not twice"):
        run.finish()
    assert run.controller is not None
    assert run.controller.ctx.level == 1


def test_a_method_may_only_go_back_where_it_said() -> None:
    class Lost(Pruner):
        def on_steps_done(self, ctx: Any) -> Rewind:
            return Rewind(3, Proposal())

    run = ToyRun(MethodSpec("lost", Lost, ""), {"sparsity": 0.0})
    with pytest.raises(ProposalError, match=r"'lost' .* go back to step 3, which `rewind_points`"):
        run.finish()
