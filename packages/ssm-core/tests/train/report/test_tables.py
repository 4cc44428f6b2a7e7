"""Facts as texts."""

from pathlib import Path

import pytest

from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.tables import HEADER, differences, duration, machine, row
from ssm_core.train.report.throughput import Throughput


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.04, "0.0 s"), (59.94, "59.9 s"), (60.0, "1 min 00 s"),
        (245.4, "4 min 05 s"), (3600.0, "1 h 00 min"),
        (12_000.0, "3 h 20 min"), (100_000.0, "27 h 46 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_row_of_a_run():
    status = {"state": "finished", "parameters": 1234, "step": 9, "monitor": "acc", "seconds": 3}
    curves = {"eval/acc": [(1, 0.75), (2, 0.5)], "eval/loss": [(2, 1.5)]}
    facts = RunFacts(Path("x"), "x", status=status, curves=curves, higher_is_better=True)
    facts.throughput = Throughput(2000.0, measured=True)
    assert row(facts) == (
        "x", "finished", "1,234", "9", "acc", "0.7500", "0.5000", "1.5000", "3.0 s",
        "2,000 (measured)",
    )  # fmt: skip
    assert len(row(facts)) == len(HEADER)


def test_row_of_a_run_that_nothing_is_known_about():
    assert row(RunFacts(Path("x"), "x")) == (
        "x", "unfinished", "-", "-", "loss", "-", "-", "-", "-", "-",
    )  # fmt: skip


def test_options_that_differ():
    a = RunFacts(Path("a"), "a", config={"recipe": "r", "model": {"d": 4, "mixer": "s4", "x": 1}})
    b = RunFacts(Path("b"), "b", config={"recipe": "q", "model": {"d": 4, "mixer": "s5", "y": 2}})
    broken = RunFacts(Path("c"), "c")
    assert differences([a, b]) == [("model.mixer", "s4", "s5")]
    assert differences([broken, a, b]) == [("model.mixer", "-", "s4", "s5")]
    assert differences([a, a]) == differences([a]) == differences([broken]) == []


def test_machine_prefers_what_really_trained():
    facts = RunFacts(Path("a"), "a", config={"trainer": {"accelerator": "auto", "precision": "p"}})
    assert dict(machine(facts)) == {
        "device": "auto", "precision": "p", "processor": "-", "system": "-",
    }  # fmt: skip
    facts.status, facts.versions = {"device": "A GPU"}, {"torch": "2.6", "numpy": "2"}
    assert dict(machine(facts))["device"] == "A GPU"
    assert dict(machine(facts))["torch"] == "2.6"
    assert "numpy" not in dict(machine(facts))
