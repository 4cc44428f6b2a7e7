"""The size of chunks in published configurations is one for a GPU: ours are left to choose."""

from __future__ import annotations

import pytest

from ssm_text.official import huggingface_config, original_config

ORIGINAL = {"d_model": 64, "n_layer": 1, "vocab_size": 9}
HUGGING_FACE = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 9, "num_heads": 2}


@pytest.mark.parametrize("layer", ["Mamba2", "Mamba3"])
def test_of_the_original(layer: str) -> None:
    config = original_config.read(ORIGINAL | {"ssm_cfg": {"layer": layer, "chunk_size": 256}})
    assert "chunk_size" not in config.mixer_options


def test_of_transformers() -> None:
    given = HUGGING_FACE | {"model_type": "mamba2", "head_dim": 64, "chunk_size": 256}
    assert "chunk_size" not in huggingface_config.read(given).mixer_options
