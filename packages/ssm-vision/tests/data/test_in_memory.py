from __future__ import annotations

import pytest
import torch

from ssm_vision.data.in_memory import InMemoryImages, Normalisation, as_is, shift_and_flip


def images(n: int = 6, c: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (n, c, 5, 7), dtype=torch.uint8)


def test_normalisation_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import normalize

    batch = images()
    expected = normalize(batch.float() / 255, [0.2, 0.6], [0.3, 0.4])
    torch.testing.assert_close(Normalisation((0.2, 0.6), (0.3, 0.4))(batch), expected)


def test_white_sets_the_scale() -> None:
    normalise = Normalisation((0.0,), (1.0,), white=16.0)
    batch = torch.tensor([0, 4, 16], dtype=torch.uint8).view(1, 1, 1, 3)
    assert normalise(batch).flatten().tolist() == pytest.approx([0.0, 0.25, 1.0])


def test_batches_are_the_single_examples() -> None:
    data = InMemoryImages(images(), torch.arange(6), Normalisation((0.1, 0.2), (0.3, 0.4)))
    assert len(data) == 6
    indices = [4, 0, 4]
    batch, labels = as_is(data.__getitems__(indices))
    assert labels.tolist() == indices
    for place, index in enumerate(indices):
        image, label = data[index]
        torch.testing.assert_close(batch[place], image)
        assert int(label) == index
    assert batch.dtype == torch.float32


def test_augmentation_sees_bytes_and_changes_the_batch() -> None:
    data = InMemoryImages(
        images(), torch.arange(6), Normalisation((0.0, 0.0), (1.0, 1.0)), lambda b: 255 - b
    )
    batch, _ = data.__getitems__([1, 2])
    torch.testing.assert_close(batch, 1 - data.images[1:3] / 255)


def test_shift_and_flip_moves_whole_images() -> None:
    """Every result is one of the shifted or mirrored images that plain slicing makes."""
    before = images(n=40, c=1)
    after = shift_and_flip(before, margin=2)
    assert after.shape == before.shape
    assert after.dtype == torch.uint8
    padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
    for i in range(40):
        windows = [
            window
            for top in range(5)
            for left in range(5)
            for crop in [padded[i, :, top : top + 5, left : left + 7]]
            for window in (crop, crop.flip(2))
        ]
        assert any(torch.equal(after[i], window) for window in windows)
    assert not torch.equal(after, before)


def test_shift_and_flip_is_drawn_from_torchs_generator() -> None:
    batch = images()
    torch.manual_seed(3)
    first = shift_and_flip(batch)
    torch.manual_seed(3)
    assert torch.equal(shift_and_flip(batch), first)
