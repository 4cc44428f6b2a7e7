"""A model that knows nothing of pruning says what can be taken out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from removal_cases import units_of
from torch import nn

from ssm_core.units import BlockAdapter, hidden_channels
from ssm_prune import hookimpl
from ssm_prune.loader import PrunePlugins
from ssm_prune.removal import remove_units
from ssm_prune.units import find_groups


class Branch(nn.Module):
    """relu between two maps, as anybody could write it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, hidden), nn.Linear(hidden, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())

    def resized(self, sizes: Mapping[str, Any]) -> Branch:
        return Branch(**sizes)

    def removable_units(self) -> BlockAdapter:
        rows = ("first.weight", "first.bias")
        return BlockAdapter((hidden_channels(self.second.in_features, rows, "second.weight"),))


def test_its_units_are_removed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Branch(16), nn.ReLU())
    units = units_of(model, "channels")
    keep = {"0": torch.arange(16) % 2 == 0}
    x = torch.randn(4, 3)
    with torch.no_grad():
        model[0].second.weight[:, 1::2] = 0
    expected = model(x)
    remove_units(model, units.groups, keep)
    assert model[0].first.weight.shape == (8, 3)
    torch.testing.assert_close(model(x), expected)


def test_a_plugin_answers_first() -> None:
    class Plugin:
        @hookimpl
        def ssm_prune_adapter(self, module: nn.Module) -> BlockAdapter | None:
            return BlockAdapter() if isinstance(module, Branch) else None

    plugins = PrunePlugins(load_entry_points=False)
    model = nn.Sequential(Branch(16))
    assert list(find_groups(model, "channels", plugins.hook.ssm_prune_adapter)) == ["0"]
    plugins.register(Plugin(), "acme-prune")
    assert find_groups(model, "channels", plugins.hook.ssm_prune_adapter) == {}


def test_a_single_unit_is_none() -> None:
    assert units_of(nn.Sequential(Branch(1)), "channels").groups == {}
