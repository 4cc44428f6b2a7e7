"""The benchmark of the sequence layers: what it compares with computes the same; its books."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from bench import contest, decode, mamba2, peak, s4, s5, ss2d, targets
from bench.contest import Contest, Entry
from bench.options import Options
from bench.peers import diagonal, tables
from bench.report import OURS, Report
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core import Mamba2Config, Tower, TowerConfig, build_mixer
from ssm_kernels import cauchy_reference, diagonal_scan_reference, log_vandermonde_reference

TOOLS = Path(__file__).parents[1]
SMOKE = Options((), smoke=True, budget_s=0.001)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70))
def test_products_of_two_tables_are_the_sum_of_powers(l: int) -> None:
    v, x = contest.doubled(s4.inputs(s4.S4D, s4.Size(2, 3, l)))
    expected = log_vandermonde_reference(v, x, l)
    torch.testing.assert_close(tables.vandermonde_products(v, x, l), expected)


def test_one_table_of_pairs_is_the_cauchy_sum() -> None:
    v, z, w = contest.doubled(s4.inputs(s4.S4, s4.Size(2, 3, 17)))
    assert not z.requires_grad
    torch.testing.assert_close(tables.cauchy_joined(v, z, w), cauchy_reference(v, z, w))


@pytest.mark.parametrize("scan", [diagonal.scan_of_pairs, diagonal.doubling])
@pytest.mark.parametrize("l", [1, 2, 3, 7, 8, 33])
def test_scans_in_parallel_are_the_loop(scan: Callable[..., Tensor], l: int) -> None:
    inputs = contest.doubled(s5.inputs(s5.Size(2, l, 3)))
    expected = diagonal_scan_reference(*inputs)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(scan(*inputs), expected)
    if l > 1:  # else a has no part in it
        found = contest.results(scan, inputs)
        torch.testing.assert_close(found, contest.results(diagonal.loop, inputs))


def test_transformers_has_the_same_layer() -> None:
    pytest.importorskip("transformers")
    one = mamba2.layer(mamba2.Size(1, 5, 8), Mamba2Config(d_state=4, headdim=8))
    calls = contest.right_ones(Report("mamba2"), one, SMOKE)
    assert calls.keys() == {OURS, *mamba2.TRANSFORMERS}


@pytest.mark.parametrize("form", ss2d.FORMS)
def test_copies_before_the_projections_make_the_same_layer(form: str) -> None:
    one = ss2d.layer(form, ss2d.Size(2, 4, 5, 8), ss2d.FORMS[form])
    calls = contest.right_ones(Report("ss2d"), one, SMOKE)
    assert calls.keys() == {OURS, ss2d.COPIES, ss2d.COPIES_FIRST}


def squares(factor: float, x: Tensor) -> Tensor:
    return factor * x * x


def contest_of(**factors: float) -> Contest:
    x = torch.linspace(-1, 1, 6).requires_grad_()
    entries = tuple(
        Entry(name, partial(partial, squares, factor)) for name, factor in factors.items()
    )
    return Contest("squares", "6", entries, partial(squares, 1.0), (x,), (x,), 6, 1e-3)


def test_a_wrong_or_missing_peer_is_not_timed() -> None:
    def missing() -> contest.Call:
        raise ImportError("no such peer")

    report = Report("squares")
    one = contest_of(**{OURS: 1.0, "right": 1.0 + 1e-5, "wrong": 1.1})
    one = Contest(**{**vars(one), "entries": (*one.entries, Entry("missing", missing))})
    contest.run(report, one, SMOKE)
    timed = {row.subject for row in report.rows if row.unit == "s" and row.value is not None}
    assert timed == {OURS, "right"}
    notes = {row.subject: row.note for row in report.rows if row.note}
    assert "WRONG" in notes["wrong"]
    assert "no such peer" in notes["missing"]
    assert report.failures == []


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_our_wrong_result_fails_the_run(factor: float) -> None:
    report = Report("squares")
    contest.run(report, contest_of(**{OURS: factor, "right": 1.0}), SMOKE)
    assert len(report.failures) == 1
    assert all(row.unit == "" for row in report.rows)


def test_the_products_of_a_step_are_its_linear_maps() -> None:
    tower = Tower(partial(build_mixer, "mamba", 8), TowerConfig(8, 3))
    linear = sum(isinstance(module, torch.nn.Linear) for module in tower.modules())
    with torch.no_grad():
        calls = decode.recorded(tower)
        assert decode.agreement(tower) < decode.TOLERANCE
    assert len(calls) == linear == 12
    shapes = {tuple(result.shape) for result in (call() for call in calls)}  # type: ignore[attr-defined]
    assert (1, 8) in shapes


def test_a_tower_that_steps_wrongly_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower(partial(build_mixer, "mamba", 8), TowerConfig(8, 1))
    step = tower.step
    monkeypatch.setattr(tower, "step", lambda x_t, state: step(x_t, tower.initial_state(1)))
    with torch.no_grad():
        assert decode.agreement(tower) > decode.TOLERANCE


def test_targets_find_the_worst_row() -> None:
    empty = {"value": 1.0, "ratio": None, "of_limit": None}

    def row(part: str, case: str, what: str, subject: str, **more: float) -> dict[str, object]:
        return {**empty, "part": part, "case": case, "what": what, "subject": subject, **more}

    rows = [
        row("s4", "log_vandermonde, 1 thread", "forward", s4.TABLE, ratio=9.0),
        row("s4", "log_vandermonde, 2 threads", "forward", s4.TABLE, ratio=7.0),
        row("s4", "cauchy, 2 threads", "forward", s4.TABLE, ratio=4.0),
        row("s5", "diagonal_scan, 1 thread", "forward", s5.DOUBLING, ratio=12.0),
        row("s5", "diagonal_scan, 1 thread", "forward", s5.LOOP, ratio=2.0),
        row("mamba2", "ssd_scan, 1 thread", "forward", "transformers", ratio=1.0),
        row("mamba2", "layer, 1 thread", "forward", "transformers", ratio=3.5),
        row("mamba2", "layer, 1 thread", "forward", "transformers, chunk 64", ratio=1.5),
        row("decode", "mamba, 1 thread", decode.OVERHEAD, "tower", value=140e-6),
        row("decode", "s4d, 1 thread", decode.OVERHEAD, "tower", value=160e-6),
    ]
    found = {target.name: target.find(rows) for target in targets.SEQUENCE_LAYERS}
    values = {name: figure.value for name, figure in found.items() if figure is not None}
    assert values == pytest.approx(
        {
            "S4D kernel vs table forward": 7.0,
            "S4 kernel vs table forward": 4.0,
            "S5 scan vs associative forward": 12.0,
            "Mamba-2 vs transformers forward": 3.5,
            "overhead of a step, us": 160.0,
        }
    )
    met = {t.name for t in targets.SEQUENCE_LAYERS if t.name in values and t.met(values[t.name])}
    assert values.keys() - met == {"S4 kernel vs table forward", "overhead of a step, us"}


def test_the_peak_of_a_process_says_why_there_is_none() -> None:
    warm = [s4.S4D, OURS, 2, 2, 8]
    assert "missing" in str(peak.peak_of("s4.one_pass", warm, [s4.S4D, "missing", 2, 2, 8], 30))
