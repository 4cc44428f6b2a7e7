"""Every recipe of ssm-vision: what kinds of units its model has, so that none silently has none."""

from __future__ import annotations

import pytest
import torch
import yaml
from removal_cases import units_of

from ssm_core import DataInfo, plugin_host
from ssm_core.train.resolve import resolve
from ssm_prune.units import UNIT_KINDS
from ssm_vision.presets import RECIPES

#: kind -> modules (of blocks: lists of blocks) that have units of it
OFFERED = {
    "cifar10-bimamba": {"channels": 6, "states": 6, "blocks": 1},
    "cifar10-mamba": {"channels": 6, "states": 6, "blocks": 1},
    "cifar10-mambavision": {
        "channels": 12,
        "states": 3,
        "heads": 3,
        "blocks": 3,
    },  # 3 of convolutions, 3 mixers, 6 MLPs
    "cifar10-mambavision-s4": {"channels": 9, "heads": 3, "blocks": 3},  # its states are coupled
    "cifar10-mambavision-s5": {"channels": 9, "states": 3, "heads": 3, "blocks": 3},
    "cifar10-mambavision-swa": {"channels": 12, "states": 3, "heads": 3, "blocks": 3},
    "cifar10-vim": {"channels": 8, "states": 8, "blocks": 1},
    "cifar10-vim-dwconv": {"channels": 16, "states": 8, "blocks": 1},
    "cifar10-vim-se": {"channels": 8, "states": 8, "blocks": 1},
    "cifar10-vit": {"channels": 6, "heads": 6, "blocks": 1},
    "digits-bimamba": {"channels": 2, "states": 2, "blocks": 1},
    "em-vmunet": {"channels": 8, "states": 8},  # one block per stage
    "folder-bimamba": {"channels": 4, "states": 4, "blocks": 1},
    "imagenet-mambavision-t": {"channels": 22, "states": 6, "heads": 6, "blocks": 3},
    "imagenet-vim-base": {"channels": 24, "states": 24, "blocks": 1},
    "imagenet-vim-small": {"channels": 24, "states": 24, "blocks": 1},
    "imagenet-vim-tiny": {"channels": 24, "states": 24, "blocks": 1},
    "imagenet-vim-tiny-longseq": {"channels": 24, "states": 24, "blocks": 1},
    "imagenet-vmamba-t": {"channels": 28, "blocks": 4},  # one state per channel
    "mnist-bimamba": {"channels": 2, "states": 2, "blocks": 1},
    "mnist-causal": {"channels": 2, "states": 2, "blocks": 1},
    "mnist-diffusion": {"channels": 3, "states": 3, "blocks": 1},
    "mnist-pixels": {"channels": 2, "states": 2, "blocks": 1},
    "mnist-rnn": {"channels": 2, "blocks": 1},
    "mnist-transformer": {"channels": 2, "heads": 2, "blocks": 1},
    "smnist-s4d": {"states": 2, "blocks": 1},
    "smnist-s5": {"states": 2, "blocks": 1},
}
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def test_every_recipe_is_in_the_table() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(OFFERED)


@pytest.mark.parametrize("recipe", OFFERED)
def test_what_the_model_of_a_recipe_offers(recipe: str) -> None:
    host = plugin_host()
    content = yaml.safe_load(host.get("recipes", recipe).path.read_text())
    config = resolve(host, recipe, content)
    channels = 1 if recipe == "em-vmunet" else 3
    shape = SHAPES.get(config.specs["data"].name, (channels, 64, 64))
    with torch.device("meta" if recipe.startswith("imagenet") else "cpu"):  # sizes are enough
        model = config.specs["model"].build(config.typed["model"], DataInfo(shape, 10))
    found = {kind: len(units_of(model, kind).groups) for kind in UNIT_KINDS}
    assert {kind: count for kind, count in found.items() if count} == OFFERED[recipe]
