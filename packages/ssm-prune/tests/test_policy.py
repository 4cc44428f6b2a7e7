from __future__ import annotations

import pytest
import torch
from torch import nn

from ssm_core import Tower, TowerConfig, build_mixer
from ssm_core.errors import ConfigError
from ssm_prune import Verdict, hookimpl
from ssm_prune.loader import PrunePlugins
from ssm_prune.policy import decide


class Model(nn.Module):
    """An embedding, two layers of one mixer and a head."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))
        config = TowerConfig(d_model=8, n_layers=2, mlp_hidden=16)
        self.tower = Tower(lambda: build_mixer(mixer, 8), config)
        self.head = nn.Linear(8, 4)


def verdicts(model: nn.Module, *allow_unsafe: str, plugin: object = None) -> dict[str, Verdict]:
    plugins = PrunePlugins(load_entry_points=False)
    if plugin is not None:
        plugins.register(plugin, "acme-prune", "1.0")
    return decide(model, plugins.hook.ssm_prune_policy, allow_unsafe)


@pytest.mark.parametrize("mixer", ["mamba", "bimamba", "rnn", "attention"])
def test_only_matrices_inside_the_blocks_may_be_pruned(mixer: str) -> None:
    found = verdicts(Model(mixer))
    allowed = {name for name, verdict in found.items() if verdict.allow}
    assert allowed
    for name, verdict in found.items():
        inside = name.startswith("tower.layers")
        vector = "norm" in name or "bias" in name
        special = any(part in name for part in ("A_log", "A_b_log", ".D", "conv1d"))
        assert verdict.allow == (inside and not vector and not special), name
        assert verdict.reason
        half = "x_proj" in name or "dt_proj" in name
        assert verdict.cap == (0.5 if half and verdict.allow else 1.0), name


def test_reasons_say_why() -> None:
    found = verdicts(Model("mamba"))
    for part, reason in {
        "A_log": "A = -1",
        "mixer.D": "skip connection",
        "dt_proj.bias": "step size",
        "norm_f.weight": "normalisation",
        "out_proj.bias": "vector",
        "positions": "position",
        "conv1d.weight": "convolution taps",
        "embed.weight": "first layer",
        "head.weight": "last layer",
    }.items():
        reasons = [v.reason for name, v in found.items() if name.endswith(part)]
        if part != "out_proj.bias":  # Mamba has none
            assert reasons, part
        assert all(reason in text for text in reasons), part


def test_tied_embedding_and_head_are_refused_once() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    model[2].weight = model[0].weight
    found = verdicts(model)
    assert [name for name, verdict in found.items() if verdict.allow] == ["1.weight"]
    assert "2.weight" not in found


@pytest.mark.parametrize(
    "name", ["A_log", "A_b_log", "A_log_2", "D", "D_b", "dt_bias", "log_step", "log_dt", "Lambda"]
)
def test_a_hostile_plugin_cannot_lift_a_safety_refusal(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].register_parameter(name, nn.Parameter(torch.ones(3, 2)))

    class AllowAll:
        @hookimpl(tryfirst=True)
        def ssm_prune_policy(self) -> Verdict:
            return Verdict(True, "trust me")

    found = verdicts(model, plugin=AllowAll())
    assert not found[f"1.{name}"].allow
    assert not found["0.bias"].allow
    assert found["0.weight"] == Verdict(True, "trust me")  # a soft refusal: plugins may know better


def test_a_plugin_may_forbid_more_and_leave_the_rest_to_the_host() -> None:
    class Careful:
        @hookimpl
        def ssm_prune_policy(self, fqn: str) -> Verdict | None:
            return Verdict(False, "mine") if fqn.endswith("in_proj.weight") else None

    found = verdicts(Model("mamba"), plugin=Careful())
    assert found["tower.layers.0.mixer.in_proj.weight"] == Verdict(False, "mine")
    assert found["tower.layers.0.mixer.out_proj.weight"].allow


def test_frozen_and_unknown_parameters_are_refused() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(3, 3))

    model = nn.Sequential(nn.Linear(3, 3), Strange(), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight.requires_grad_(False)
    found = verdicts(model)
    assert "frozen" in found["2.weight"].reason
    assert "role of a parameter of Strange" in found["1.table"].reason
    assert not found["1.table"].allow


def test_the_user_overrides_by_pattern() -> None:
    found = verdicts(Model("mamba"), "*.A_log", "*x_proj.weight")
    lifted = found["tower.layers.1.mixer.A_log"]
    assert lifted.allow
    assert lifted.reason.startswith("by prune.allow_unsafe, although: state matrix")
    assert found["tower.layers.1.mixer.x_proj.weight"].cap == 1.0
    assert not found["tower.layers.1.mixer.D"].allow


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'\*\.A_lg' matches no parameter"):
        verdicts(Model("mamba"), "*.A_lg")


def test_limits_round_down() -> None:
    assert Verdict(True, "", 0.5).limit(7) == 3
    assert Verdict(True, "").limit(7) == 7
    assert Verdict(False, "").limit(7) == 0
