"""What training asks of a model: the order of its layers, and beginning with trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_cases import CASES, INFO

from ssm_core.errors import CheckpointError
from ssm_core.train.checkpoint import save_weights
from ssm_core.train.start_from import start_from
from ssm_vision.models.image_model import ImageModel

NAMES = pytest.mark.parametrize("name", CASES)


def classifier_names(model: ImageModel) -> list[str]:
    """Parameters of the last linear map."""
    own = {id(p) for p in model.get_classifier().parameters()}
    return [name for name, p in model.named_parameters() if id(p) in own]


@NAMES
def test_layers_are_numbered_from_stem_to_head(name: str) -> None:
    model = CASES[name].build(INFO)
    places = {n: model.layer_of(n) for n, _ in model.named_parameters()}
    top = max(places.values())
    assert set(places.values()) == set(range(top + 1))
    assert top >= 3  # stem, two blocks at least, head
    assert {places[n] for n in classifier_names(model)} == {top}
    assert all(places[n] == 0 for n in places if n.startswith(("patch_embed", "pos_embed", "cls")))


@NAMES
def test_weights_of_the_same_model_are_all_taken(name: str, tmp_path: Path) -> None:
    old, new = (CASES[name].build(INFO) for _ in "ab")
    save_weights(tmp_path / "old.safetensors", old, {})
    assert start_from(new, tmp_path / "old.safetensors") == []
    expected = old.state_dict()
    assert all(torch.equal(tensor, expected[n]) for n, tensor in new.state_dict().items())


@NAMES
def test_another_classifier_is_trained_anew(name: str, tmp_path: Path) -> None:
    old, new = CASES[name].build(INFO), CASES[name].build(replace(INFO, n_outputs=7))
    save_weights(tmp_path / "old.safetensors", old, {})
    untrained = start_from(new, tmp_path / "old.safetensors")
    assert sorted(untrained) == sorted(classifier_names(new))
    own, expected = new.state_dict(), old.state_dict()
    assert all(torch.equal(own[n], expected[n]) for n in own if n not in untrained)


@NAMES
def test_weights_of_another_model_are_refused(name: str, tmp_path: Path) -> None:
    save_weights(tmp_path / "other.safetensors", torch.nn.Linear(2, 3), {})
    with pytest.raises(CheckpointError, match="does not fit this model: unexpected") as caught:
        start_from(CASES[name].build(INFO), tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)
