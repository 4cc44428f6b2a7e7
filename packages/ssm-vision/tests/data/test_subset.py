from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from ssm_core.errors import ConfigError
from ssm_vision.data.in_memory import InMemoryImages, Normalisation, shift_and_flip
from ssm_vision.data.subset import SubsetOptions, augmentation, chosen, part, require_strength


def test_the_choice_is_fixed_and_has_no_repeats() -> None:
    torch.manual_seed(1)
    first = chosen(100, 30, "train_examples")
    torch.manual_seed(2)
    assert torch.equal(chosen(100, 30, "train_examples"), first)
    assert len(set(first.tolist())) == 30
    assert first.tolist() == sorted(first.tolist())
    assert first.tolist() != list(range(30))


def test_part_of_images_in_memory_keeps_their_treatment() -> None:
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    normalise = Normalisation((0.0,), (1.0,), white=1.0)
    data = InMemoryImages(images, torch.arange(20), normalise, lambda batch: batch + 1)
    few = part(data, SubsetOptions(train_examples=5), "train_examples")
    batch, labels = few.__getitems__(range(5))
    assert labels.tolist() == chosen(20, 5, "").tolist()
    assert batch.flatten().tolist() == [label + 1 for label in labels.tolist()]


def test_part_of_other_sets() -> None:
    data = TensorDataset(torch.arange(20))
    few = part(data, SubsetOptions(eval_examples=5), "eval_examples")
    assert [int(few[i][0]) for i in range(5)] == chosen(20, 5, "").tolist()
    assert part(data, SubsetOptions(), "eval_examples") is data


def test_augmentation_of_bytes() -> None:
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    normalise = Normalisation((0.5, 0.4, 0.3), (1.0, 1.0, 1.0))
    assert augmentation(False, 9.0, normalise) is None
    assert augmentation(True, None, normalise) is shift_and_flip
    change = augmentation(True, 9.0, normalise)
    assert change is not None
    torch.manual_seed(0)
    changed = change(images)
    torch.manual_seed(0)
    assert not torch.equal(changed, shift_and_flip(images))
    assert changed.dtype == torch.uint8


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"data\.train_examples is 0, expected null or 1 or more"):
        SubsetOptions(train_examples=0)
    with pytest.raises(ConfigError, match=r"data\.eval_examples is 9, expected at most the 4"):
        chosen(4, 9, "eval_examples")
    with pytest.raises(ConfigError, match=r"data\.randaugment is 11\.0, expected null or a number"):
        require_strength(11.0)
