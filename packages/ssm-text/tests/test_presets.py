from __future__ import annotations

import pytest
import torch

from ssm_core.errors import UnknownNameError
from ssm_text import MambaLM
from ssm_text.presets import PRESETS, preset

#: of the published models, tied weights counted once
PARAMETERS = {
    "mamba-130m": 129_135_360,
    "mamba-370m": 371_516_416,
    "mamba-790m": 793_204_224,
    "mamba-1.4b": 1_372_178_432,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-130m": 128_989_632,
    "mamba2-370m": 368_346_624,
    "mamba2-780m": 780_161_280,
    "mamba2-1.3b": 1_343_757_312,
    "mamba2-2.7b": 2_702_599_680,
}
#: six of the blocks of mamba2-2.7b mix by attention instead
_MAMBA2_MIXER = 10576 * 2560 + 5376 * 5 + 3 * 80 + 5120 + 5120 * 2560
_ATTENTION_MIXER = 11520 * 2560 + 11520 * 5 + 3840 * 2560
PARAMETERS["mamba2attn-2.7b"] = PARAMETERS["mamba2-2.7b"] + 6 * (_ATTENTION_MIXER - _MAMBA2_MIXER)


def test_every_preset_is_counted():
    assert set(PRESETS) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_published_model(name):
    with torch.device("meta"):
        model = MambaLM.from_preset(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert model.vocab_size == 50277
    rows = 50288 if name.startswith("mamba2") else 50280
    assert model.lm_head.weight.shape[0] == rows


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="'mamba-130n': did you mean 'mamba-130m'"):
        preset("mamba-130n")
