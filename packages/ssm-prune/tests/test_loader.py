from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ssm_core import plugin_host
from ssm_core.errors import DuplicateNameError, PluginLoadError, UnknownNameError
from ssm_prune import MethodSpec, Pruner, hookimpl
from ssm_prune.loader import PrunePlugins, prune_plugins
from ssm_prune.methods import ssm_prune_methods

MakeDistribution = Callable[..., Path]

METHOD = """
from ssm_prune import MethodSpec, Pruner, hookimpl


@hookimpl
def ssm_prune_methods():
    return [MethodSpec("shake", Pruner, "shakes the weights")]
"""


OWN = sorted(spec.name for spec in ssm_prune_methods())


def names(plugins: PrunePlugins) -> list[str]:
    return sorted(plugins.methods)


def test_the_built_in_method_comes_through_an_entry_point() -> None:
    plugins = PrunePlugins()
    method = plugins.method("dynamic-cosine")
    assert method.distribution == "ssm-prune"
    assert method.provider == f"ssm-prune {method.version}"
    assert method.version
    assert names(PrunePlugins(load_entry_points=False)) == []


def test_an_installed_plugin_is_found_with_its_version(make_distribution: MakeDistribution) -> None:
    make_distribution("acme-prune", "2.5", "acme_shake", METHOD)
    assert prune_plugins().method("shake").provider == "acme-prune 2.5"
    (found,) = [r for n, r in plugin_host().table("pruners").items() if n == "shake"]
    assert (found.spec.summary, found.provider) == ("shakes the weights", "acme-prune 2.5")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        (METHOD.replace("ssm_prune_methods", "ssm_prune_metods"), "unknown hook"),
        (METHOD.replace('weights")', 'weights", api=2)'), "written for interface 2"),
        (
            METHOD.replace('MethodSpec("shake", Pruner, "shakes the weights")', '"shake"'),
            "a MethodSpec",
        ),
        (METHOD.replace('"shake"', '"a:b"'), "expected a word without ':'"),
        (METHOD.replace('weights")', 'weights", dict)'), "must be a dataclass of PruneOptions"),
        (METHOD.replace("methods():", "methods(model):"), "model"),
    ],
    ids=["raises", "import", "misspelt", "api", "type", "name", "options", "argument"],
)
def test_a_broken_plugin_is_recorded_and_stops_nobody_else(
    make_distribution: MakeDistribution, source: str, error: str
) -> None:
    make_distribution("acme-prune", "2.5", "acme_broken", source)
    plugins = PrunePlugins()
    assert names(plugins) == OWN
    (broken,) = plugins.broken
    assert broken.provider == "acme-prune 2.5"
    assert error in broken.error
    assert "\n" not in broken.error
    # named when a run asks for something that nobody offers
    with pytest.raises(UnknownNameError, match=r"'shake'.*acme-prune 2\.5") as caught:
        plugin_host().get("pruners", "shake")
    assert error in str(caught.value)
    assert plugin_host().get("pruners", "dynamic-cosine").name == "dynamic-cosine"


def test_two_distributions_with_one_method_name_are_both_named(
    make_distribution: MakeDistribution,
) -> None:
    make_distribution("acme-prune", "2.5", "acme_shake", METHOD)
    make_distribution("bolt-prune", "0.1", "bolt_shake", METHOD)
    with pytest.raises(DuplicateNameError, match=r"acme-prune 2\.5 and by bolt-prune 0\.1"):
        prune_plugins().method("shake")
    table = plugin_host().table("pruners")
    assert table["shake"].spec.summary == "ambiguous: acme-prune 2.5, bolt-prune 0.1"
    spec = table["shake"].spec
    with pytest.raises(DuplicateNameError, match="choose --prune acme-prune:shake or --prune bolt"):
        spec.build(spec.config())
    chosen = table["bolt-prune:shake"].spec
    assert chosen.build(chosen.config()).controller.method.provider == "bolt-prune 0.1"


def test_autoload_and_single_plugins_can_be_switched_off(
    make_distribution: MakeDistribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_distribution("acme-prune", "2.5", "acme_shake", METHOD)
    assert names(PrunePlugins()) == sorted([*OWN, "shake"])
    monkeypatch.setenv("SSM_DISABLE_PLUGINS", "other,acme-prune")
    assert names(PrunePlugins()) == OWN
    monkeypatch.delenv("SSM_DISABLE_PLUGINS")
    monkeypatch.setenv("SSM_PRUNE_DISABLE_AUTOLOAD", "1")
    assert names(PrunePlugins()) == OWN


class Twice:
    @hookimpl
    def ssm_prune_methods(self) -> list[MethodSpec]:
        return [MethodSpec("twice", Pruner, "")]


def test_one_distribution_cannot_offer_a_name_twice() -> None:
    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Twice(), "acme", "1")
    with pytest.raises(PluginLoadError, match="acme 1: method 'twice' is offered twice"):
        plugins.register(Twice(), "acme", "1")
    assert len(plugins.methods["twice"]) == 1


def test_a_known_ramp_cannot_be_replaced() -> None:
    class Steal:
        @hookimpl
        def ssm_prune_schedules(self) -> dict[str, object]:
            return {"cosine": lambda u: 1.0}

    plugins = PrunePlugins(load_entry_points=False)
    before = dict(plugins.ramps)
    with pytest.raises(DuplicateNameError, match="'cosine' is offered by ssm-prune and by thief 1"):
        plugins.register(Steal(), "thief", "1")
    assert plugins.ramps == before


def test_a_misspelt_hook_is_an_error_that_names_it() -> None:
    class Misspelt:
        @hookimpl
        def ssm_prune_mask_changed(self, event: object) -> None:
            raise AssertionError("never called")

    plugins = PrunePlugins(load_entry_points=False)
    count = len(plugins.manager.get_plugins())
    with pytest.raises(PluginLoadError, match=r"acme 1: .*ssm_prune_mask_changed"):
        plugins.register(Misspelt(), "acme", "1")
    assert len(plugins.manager.get_plugins()) == count
