"""Values of the official implementations, read with nothing but what their files say."""

from __future__ import annotations

import json

import pytest
import torch
from official_cases import golden

from ssm_core import S4, S4D, S5, from_official


def parsed(text: str) -> object:
    return {"True": True, "False": False}[text] if text in ("True", "False") else json.loads(text)


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("s4", "s4_dplr_uni", S4),
        ("s4", "s4_diag_uni", S4D),
        ("s4d", "s4_diag_uni", S4D),
        ("s4", "s4d_minimal", S4D),
        ("s4d", "s4d_minimal", S4D),
        ("s5", "s5_uni_zoh", S5),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
@torch.no_grad()
def test_layer_has_the_official_output(family: str, name: str, kind: type, as_text: bool) -> None:
    state_dict, x, expected, metadata = golden(name)
    config = {
        key: text if as_text or key == "disc" else parsed(text) for key, text in metadata.items()
    }
    layer = from_official(family, state_dict, **config)
    assert type(layer) is kind
    y = layer(x if x.dim() == 3 else x.unsqueeze(0)).view_as(expected)
    assert (y - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_mixers_of_a_language_model() -> None:
    state_dict = golden("hf_mamba").state_dict
    prefix = "backbone.layers.1.mixer."
    layer = from_official("mamba", state_dict, prefix=prefix)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, state_dict[prefix + name])
