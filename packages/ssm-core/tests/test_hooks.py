"""One test per hook, and the tests that prove there is one, and a page, for each."""

import inspect
import re
from pathlib import Path

import pytest

from ssm_core import hookspecs
from ssm_core.errors import UnknownNameError
from ssm_core.train.fit import fit
from ssm_core.train.resolve import read_yaml, resolve

HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("ssm_"))
PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


@pytest.fixture
def counter(host, toy, tmp_path):
    """The toy extension after a run of three epochs of six steps."""
    base = read_yaml(host.get("recipes", "points-net").path)
    config = resolve(host, "points-net", base, arguments=["--count", "counter"])
    fit(host, config, tmp_path, resume=False)
    return toy.Counter.instances[-1]


def test_every_hook_has_a_test():
    tests = {name for name in globals() if name.startswith("test_hook_")}
    assert {f"test_hook_{name}" for name in HOOKS} == tests


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_arguments(name):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
    assert f"`{name}({arguments})`" in PAGE.read_text(encoding="utf-8")
    assert inspect.getdoc(getattr(hookspecs, name))


def test_documented_hooks_exist():
    named = set(re.findall(r"`(ssm_\w+)\(", PAGE.read_text(encoding="utf-8")))
    assert named == set(HOOKS)


def test_hook_ssm_register_models(host):
    assert host.get("models", "net").summary == "two layers"


def test_hook_ssm_register_mixers(host):
    assert host.get("mixers", "mamba").name == "mamba"


def test_hook_ssm_register_datasets(host):
    assert host.table("datasets")["points"].provider == "toy 1.0"


def test_hook_ssm_register_tasks(host):
    assert host.get("tasks", "classify").name == "classify"


def test_hook_ssm_register_recipes(host):
    assert host.get("recipes", "points-net").path.is_file()


def test_hook_ssm_register_benchmarks(host):
    spec = host.get("benchmarks", "nets")
    assert (list(spec.models()), spec.size) == (["net"], "points")


def test_hook_ssm_register_exports(host):
    spec = host.get("exports", "nets")
    (graph,) = spec.graphs(spec.load("net", None), None)
    assert (graph.name, graph.sizes) == ("model", ["batch"])
    assert spec.load("other", None) is None


def test_hook_ssm_register_commands(train):
    assert train("say", "hello")[:2] == (3, "said hello\n")


def test_hook_ssm_register_extensions(host):
    assert host.extension_sections == {"count": "counters"}


def test_hook_ssm_broken_plugins(host):
    with pytest.raises(UnknownNameError, match=r"not loaded: lost 1 .*no such file"):
        host.get("counters", "lost")


def test_hook_ssm_run_start(counter):
    assert counter.seen[0] == "run_start"
    assert counter.seen.count("run_start") == 1


def test_hook_ssm_epoch_start(counter):
    assert counter.seen.count("epoch_start") == 3


def test_hook_ssm_backward_end(counter):
    assert counter.seen.count("backward_end") == 18


def test_hook_ssm_step_end(counter):
    assert counter.steps == 18
    first = counter.seen.index("step_end")
    assert counter.seen[first - 1] == "backward_end"


def test_hook_ssm_eval_end(counter):
    assert counter.seen.count("eval_end") == 3


def test_hook_ssm_epoch_end(counter):
    assert counter.seen.count("epoch_end") == 3
    assert counter.seen.index("epoch_end") < counter.seen.index("eval_end")


def test_hook_ssm_steps_done(host, tmp_path, toy):
    base = read_yaml(host.get("recipes", "points-net").path)
    words = ["--count", "counter", "--count.again", "8"]
    run = fit(host, resolve(host, "points-net", base, arguments=words), tmp_path, resume=False)
    counter = toy.Counter.instances[-1]
    assert counter.seen.count("steps_done") == 2
    assert (run.level, run.steps_before, run.step) == (1, 10, 18)
    assert counter.steps == 28


def test_hook_ssm_should_stop(host, tmp_path):
    base = read_yaml(host.get("recipes", "points-net").path)
    words = ["--count", "counter", "--count.start", "990"]
    run = fit(host, resolve(host, "points-net", base, arguments=words), tmp_path, resume=False)
    assert run.stop_reason == "counted far enough"
    assert run.step == 12


def test_hook_ssm_checkpoint_save(counter):
    assert counter.seen.count("checkpoint_save") >= 3


def test_hook_ssm_checkpoint_load(host, toy, tmp_path):
    base = read_yaml(host.get("recipes", "points-net").path)
    config = resolve(host, "points-net", base, arguments=["--count", "counter"])
    fit(host, config, tmp_path, resume=False)
    fit(host, config, tmp_path, resume=True)
    again = toy.Counter.instances[-1]
    assert "checkpoint_load" in again.seen
    assert again.steps == 18


def test_hook_ssm_run_end(counter, host, toy, tmp_path, monkeypatch):
    assert counter.seen[-1] == "run_end NoneType"
    from ssm_core.train import loop

    def fails(run, batch, recorder):
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "_step", fails)
    base = read_yaml(host.get("recipes", "points-net").path)
    config = resolve(host, "points-net", base, arguments=["--count", "counter"])
    with pytest.raises(ZeroDivisionError):
        fit(host, config, tmp_path, resume=False)
    assert toy.Counter.instances[-1].seen[-1] == "run_end ZeroDivisionError"


def test_hook_ssm_report(train, tmp_path):
    assert train("fit", "points-net")[0] == 0
    assert (tmp_path / "runs/points-net-001/report/toy.txt").read_text() == "points-net-001"
