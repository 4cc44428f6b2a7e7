from __future__ import annotations

import pytest
from torch import nn

from ssm_core import DataInfo
from ssm_core.train.optim import make_optimizer
from ssm_core.train.options import OptimOptions
from ssm_vision.classifier import PatchClassifier, PatchClassifierConfig
from ssm_vision.models.layer_order import layer_order


def test_a_row_of_blocks() -> None:
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "head.weight"]
    names += ["layers.10.norm.weight", "layers.0.mixer.D", "layers.2.norm.weight", "norm_f.weight"]
    assert list(layer_order(names).values()) == [0, 0, 0, 4, 3, 1, 2, 4]


def test_stages_of_blocks() -> None:
    names = ["patch_embed.0.weight", "layers.0.blocks.0.op.A", "layers.0.blocks.1.op.A"]
    names += ["layers.0.downsample.1.weight", "layers.1.blocks.0.op.A", "classifier.norm.weight"]
    names += ["classifier.head.bias"]
    assert list(layer_order(names).values()) == [0, 1, 2, 2, 3, 4, 4]


def test_a_decoder_follows_the_encoder() -> None:
    names = ["vmunet.patch_embed.proj.weight", "vmunet.layers_up.0.blocks.0.norm.weight"]
    names += ["vmunet.layers.0.blocks.0.norm.weight", "vmunet.layers.1.blocks.0.norm.weight"]
    names += ["vmunet.layers_up.1.upsample.weight", "vmunet.final_conv.weight"]
    assert list(layer_order(names).values()) == [0, 3, 1, 2, 4, 5]


def test_the_norm_of_the_stem_is_part_of_the_stem() -> None:
    names = ["patch_embed.norm.weight", "layers.0.blocks.0.ln_1.weight", "norm.weight"]
    assert list(layer_order(names).values()) == [0, 1, 2]


def test_levels_without_blocks_of_their_own_count_once() -> None:
    names = ["patch_embed.x", "levels.0.blocks.0.a", "levels.1.downsample.a", "norm.weight"]
    assert list(layer_order(names).values()) == [0, 1, 2, 3]


def test_patch_classifier_has_an_order(info: DataInfo) -> None:
    config = PatchClassifierConfig(d_model=8, n_layers=2, mixer_options={"d_state": 2})
    model = PatchClassifier(config, info)
    places = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert (places["positions"], places["embed.weight"], places["head.bias"]) == (0, 0, 3)
    assert {places[n] for n in places if n.startswith("tower.layers.1.")} == {2}
    optimizer = make_optimizer(model, OptimOptions(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    head: nn.Linear = model.head
    assert rates[id(head.weight)] == 1.0
    assert rates[id(model.embed.weight)] == pytest.approx(0.125)
