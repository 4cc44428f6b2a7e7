from importlib.metadata import EntryPoint

import pytest

from ssm_core import MixerSpec, hookimpl
from ssm_core import plugins as module
from ssm_core.errors import DuplicateNameError, PluginLoadError, UnknownNameError
from ssm_core.plugins import PluginHost
from ssm_core.specs import NoOptions, recipes_in


class Offers:
    def __init__(self, name):
        self.name = name

    @hookimpl
    def ssm_register_mixers(self):
        return [MixerSpec(self.name, NoOptions, lambda d_model, config: None, "one more")]


class FakeEntry:
    """An entry point as importlib.metadata gives it, without a distribution on disk."""

    group = "ssm.plugins"

    def __init__(self, name, dist, result):
        self.name, self.value, self._result = name, f"{dist}:plugin", result
        self.dist = type("Dist", (), {"name": dist, "version": "1.0"})()

    def load(self):
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.fixture
def entries(monkeypatch):
    def use(*found):
        monkeypatch.setattr(module, "entry_points", lambda group: list(found))
        return PluginHost()

    return use


def test_built_in_mixers_come_through_the_same_call():
    host = PluginHost(load_entry_points=False)
    assert {"mamba", "bimamba", "rnn", "attention"} <= set(host.table("mixers"))
    assert host.table("mixers")["mamba"].provider.startswith("ssm-core ")


def test_entry_points_are_loaded_with_their_distribution(entries):
    host = entries(FakeEntry("acme", "acme-ssm", Offers("acme")))
    assert host.table("mixers")["acme"].provider == "acme-ssm 1.0"
    assert "acme-ssm 1.0" in host.providers
    assert host.broken == []


def test_broken_plugin_is_named_and_does_not_stop_others(entries):
    host = entries(
        FakeEntry("bad", "bad-ssm", ImportError("no module named x")),
        FakeEntry("good", "good-ssm", Offers("good")),
    )
    assert "good" in host.table("mixers")
    assert [str(b) for b in host.broken] == [
        "bad-ssm 1.0 (entry point 'bad'): ImportError: no module named x"
    ]
    with pytest.raises(UnknownNameError, match=r"not loaded: bad-ssm 1\.0"):
        host.get("mixers", "badmixer")


def test_plugin_that_fails_while_registering_is_named(entries):
    class Fails:
        @hookimpl
        def ssm_register_models(self):
            raise RuntimeError("later")

    host = entries(FakeEntry("f", "fails-ssm", Fails()))
    assert host.table("models") == {}
    assert "fails-ssm 1.0" in str(host.broken[0])


def test_duplicate_names_name_both_distributions(entries):
    host = entries(
        FakeEntry("a", "first-ssm", Offers("same")), FakeEntry("b", "second-ssm", Offers("same"))
    )
    with pytest.raises(DuplicateNameError, match=r"first-ssm 1\.0 and by second-ssm 1\.0"):
        host.table("mixers")


def test_duplicate_entry_point_names_name_both_distributions(entries):
    with pytest.raises(DuplicateNameError, match=r"first-ssm 1\.0 and by second-ssm 1\.0"):
        entries(FakeEntry("a", "first-ssm", Offers("x")), FakeEntry("a", "second-ssm", Offers("y")))


def test_disabled_plugins_are_not_loaded(entries, monkeypatch):
    monkeypatch.setenv("SSM_DISABLE_PLUGINS", "bad,other-ssm 1.0")
    host = entries(
        FakeEntry("bad", "bad-ssm", ImportError("x")), FakeEntry("o", "other-ssm", Offers("o"))
    )
    assert host.broken == []
    assert "o" not in host.table("mixers")


def test_misspelt_hook_is_an_error_that_names_the_plugin():
    class Misspelt:
        @hookimpl
        def ssm_register_mixer(self):
            return []

    host = PluginHost(load_entry_points=False)
    with pytest.raises(PluginLoadError, match=r"plugin mine 1: .*ssm_register_mixer"):
        host.register(Misspelt(), "mine 1")
    assert "mamba" in host.table("mixers")


def test_wrong_argument_name_is_an_error():
    class Wrong:
        @hookimpl
        def ssm_step_end(self, runn):
            return None

    with pytest.raises(PluginLoadError, match="runn"):
        PluginHost(load_entry_points=False).register(Wrong(), "mine 1")


def test_run_manager_does_not_leak_into_the_host():
    class Extension:
        @hookimpl
        def ssm_run_start(self, run):
            self.run = run

    host = PluginHost(load_entry_points=False)
    extension = Extension()
    host.run_manager([extension]).hook.ssm_run_start(run="a run")
    assert extension.run == "a run"
    assert not host.manager.is_registered(extension)


def test_unknown_kind():
    with pytest.raises(UnknownNameError, match="unknown kind 'modles': did you mean 'models'"):
        PluginHost(load_entry_points=False).table("modles")


def test_recipes_in_reads_names_and_summaries(tmp_path):
    (tmp_path / "b.yaml").write_text("summary: second\n")
    (tmp_path / "a.yaml").write_text("summary: first\n")
    (tmp_path / "note.txt").write_text("no recipe")
    assert [(r.name, r.summary) for r in recipes_in(tmp_path)] == [("a", "first"), ("b", "second")]


def test_real_entry_points_have_what_the_host_reads():
    entry = EntryPoint(name="n", value="os:path", group="ssm.plugins")
    assert module.provider_of(entry) == "os:path"
