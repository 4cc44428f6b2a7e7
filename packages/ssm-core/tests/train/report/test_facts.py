"""What run folders say, whole and damaged."""

import pytest

from ssm_core.train.report.facts import RunFacts, facts_of, run_names


def test_names_repeat_only_as_much_as_they_must(tmp_path):
    runs = [tmp_path / "a/x-001", tmp_path / "b/x-001", tmp_path / "b/y-001"]
    assert run_names(runs) == ["a/x-001", "b/x-001", "y-001"]
    assert run_names(runs[:1]) == ["x-001"]
    assert run_names([]) == []


def test_the_same_folder_twice_ends(tmp_path):
    names = run_names([tmp_path / "x", tmp_path / "x"])
    assert len(names) == 2
    assert names[0].endswith("x")


def test_facts_of_a_finished_run(train, host, tmp_path):
    train("fit", "points-net")
    facts = facts_of(host, tmp_path / "runs/points-net-001", "mine")
    assert facts.problems == []
    assert (facts.name, facts.recipe, facts.data, facts.monitor) == (
        "mine", "points-net", "points", "accuracy",
    )  # fmt: skip
    assert facts.higher_is_better is True
    assert facts.best is not None
    values = [value for _, value in facts.curves["eval/accuracy"]]
    assert facts.best[1] == max(values)
    assert facts.last("accuracy") == values[-1]
    assert facts.last("nothing") is None
    assert facts.status["device"] == "cpu"
    assert "torch" in facts.versions


@pytest.mark.parametrize(("higher", "expected"), [(True, (3, 0.9)), (False, (1, 0.2))])
def test_the_best_follows_the_direction(tmp_path, higher, expected):
    facts = RunFacts(tmp_path, "x", status={"monitor": "m"}, higher_is_better=higher)
    assert facts.best is None
    facts.curves = {"eval/m": [(1, 0.2), (3, 0.9), (5, 0.4)]}
    assert facts.best == expected
    facts.higher_is_better = None
    assert facts.best is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("status.json", "{"),
        ("status.json", "[1]"),
        ("versions.json", None),
        ("metrics.csv", None),
        ("metrics.csv", "1,2,3\n4,5,6\n"),
        ("info.json", "no"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(train, host, tmp_path, file, content):
    train("fit", "points-net", "--trainer.max_steps", "2")
    run = tmp_path / "runs/points-net-001"
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    facts = facts_of(host, run, "x")
    assert len(facts.problems) == 1
    assert facts.problems[0].startswith(str(run / file))
    assert facts.recipe == "points-net"
    assert (file == "status.json") == (facts.status == {})
    assert (file == "metrics.csv") == (facts.curves == {})


def test_a_task_that_is_not_installed(train, host, tmp_path):
    train("fit", "points-net", "--trainer.max_steps", "2")
    config = tmp_path / "runs/points-net-001/config.yaml"
    config.write_text(config.read_text().replace("name: net", "name: gone"))
    facts = facts_of(host, tmp_path / "runs/points-net-001", "x")
    assert "'gone'" in facts.problems[0]
    assert facts.best is None
    assert facts.last("accuracy") is not None
