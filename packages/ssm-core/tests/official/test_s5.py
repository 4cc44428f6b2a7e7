"""S5 layers in the names of the JAX code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from official_cases import assert_reads_back, golden, moved
from torch import Tensor

from ssm_core import S5, S5Config, from_official
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True},
    {"bidirectional": True, "C_init": "complex_normal", "discretization": "bilinear"},
    {"conj_sym": False, "blocks": 2, "clip_eigs": True, "activation": "full_glu"},
    {"activation": "half_glu2", "discretization": "bilinear", "step_rescale": 2.0},
    {"activation": "gelu", "C_init": "complex_normal"},
    {"activation": None, "blocks": 4},
]


def tree_of(layer: S5) -> dict[str, Any]:
    """The parameters as the JAX code nests them."""
    tree: dict[str, Any] = {}
    for name, value in layer.state_dict().items():
        part, dot, kind = name.partition(".")
        array = value.numpy()
        if dot:
            kernel = kind == "weight"
            tree.setdefault(part, {})["kernel" if kernel else kind] = array.T if kernel else array
        else:
            tree.setdefault("seq", {})[name] = array
    return tree


def flat(tree: dict[str, Any], separator: str) -> dict[str, Tensor]:
    return {
        f"{part}{separator}{name}": torch.from_numpy(np.ascontiguousarray(value))
        for part, inner in tree.items()
        for name, value in inner.items()
    }


@pytest.mark.parametrize("options", OPTIONS)
def test_reads_back(options: dict[str, Any]) -> None:
    options = {"d_state": 8, **options}
    layer = moved(S5(6, S5Config(**options)))
    tree = tree_of(layer)
    read = assert_reads_back("s5", layer, tree, **options)
    assert read.config == layer.config
    for separator in "/.":
        assert_reads_back("s5", layer, flat(tree, separator), **options)
    deep = {"params": {"encoder": {"layers_0": tree}}}
    assert_reads_back("s5", layer, deep, prefix="params/encoder/layers_0/", **options)
    if options.get("activation", "") in ("gelu", None):
        assert_reads_back("s5", layer, tree["seq"], **options)


def test_original_names_of_options() -> None:
    layer = moved(S5(6, S5Config(8, discretization="bilinear", activation="half_glu2")))
    words = {"disc": "bilinear", "activation_fn": "half_glu2", "p_dropout": 0.0, "ssm_lr": 1e-3}
    read = assert_reads_back("s5", layer, tree_of(layer), **words, ssm_size=8, P=4, H=6)
    assert read.config == layer.config


def test_left_out_options_follow_from_the_names() -> None:
    layer = moved(S5(6, S5Config(8, bidirectional=True, C_init="complex_normal")))
    assert assert_reads_back("s5", layer, tree_of(layer)).config == layer.config
    bare = golden("s5_uni_zoh").state_dict
    layer = from_official("s5", bare)
    assert isinstance(layer, S5)
    assert layer.config.activation is None
    assert layer.config.d_state == 16


def test_norm_is_reported() -> None:
    tree = tree_of(S5(6, S5Config(8))) | {"norm": {"scale": np.ones(6), "bias": np.ones(6)}}
    with pytest.raises(CheckpointError) as caught:
        from_official("s5", tree)
    assert str(caught.value) == (
        "s5: the state dict does not fit: unexpected norm/scale, norm/bias; "
        "the norm belongs to the block, leave it out"
    )


def test_deeper_layer_is_found_and_its_prefix_told() -> None:
    with pytest.raises(CheckpointError, match=r"pass prefix='encoder/layers_1/' if that"):
        from_official("s5", {"encoder": {"layers_1": tree_of(S5(6, S5Config(8)))}})


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({}, {"ssm_size": 4}, "s5: ssm_size is 4, but seq/Lambda_re of shape (4,) makes it 8"),
        ({}, {"d_state": 8, "conj_sym": False}, "s5: d_state is 8, but seq/Lambda_re of shape "),
        ({}, {"bidirectional": True}, "s5: bidirectional is True, but seq/C of shape (6, 4, 2) "),
        (
            {"bidirectional": True},
            {"bidirectional": False},
            "s5: bidirectional is False, but seq/C1 of shape (6, 4, 2) makes it True",
        ),
        (
            {"bidirectional": True},
            {"C_init": "complex_normal"},
            "s5: C_init is 'complex_normal', but the state dict has C1 and C2",
        ),
        (
            {"bidirectional": True, "C_init": "complex_normal"},
            {"C_init": "lecun_normal"},
            "s5: C_init is 'lecun_normal', but the state dict has one C",
        ),
        (
            {},
            {"activation": "full_glu"},
            "s5: activation is 'full_glu', but a state dict with out2 needs 'half_glu1' or ",
        ),
        (
            {"activation": None},
            {"activation": "half_glu1"},
            "s5: activation is 'half_glu1', but a state dict with no gate needs None or 'gelu'",
        ),
        ({}, {"disc": "euler"}, ""),
        ({}, {"blocks": 3}, "s5: S5Config: d_state is 8 with 3 blocks"),
        ({}, {"disc": "zoh", "discretization": "bilinear"}, "s5: disc is 'zoh', but discretizati"),
    ],
)
def test_contradictions(options: dict[str, Any], config: dict[str, Any], message: str) -> None:
    tree = tree_of(S5(6, S5Config(d_state=8, **options)))
    with pytest.raises(ConfigError) as caught:
        from_official("s5", tree, **config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_belongs_to_the_block_is_no_option() -> None:
    with pytest.raises(UnknownNameError, match="'prenorm'"):
        from_official("s5", tree_of(S5(6, S5Config(8))), prenorm=True)


def test_missing_parts_are_named() -> None:
    tree = tree_of(S5(6, S5Config(8, bidirectional=True, activation="full_glu")))
    del tree["seq"]["C2"], tree["out2"], tree["out1"]["bias"]
    with pytest.raises(CheckpointError, match=r"missing seq/C2, out2/kernel, out1/bias, out2/bias"):
        from_official("s5", tree)
