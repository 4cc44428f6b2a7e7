from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssm_vision.mixing import Mixing


def batch(b: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(b, 3, 9, 14, dtype=torch.float64), torch.randint(classes, (b,))


def share_of(targets: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of the own label, from an example whose opposite has another one."""
    i = next(i for i in range(len(labels)) if labels[i] != labels.flip(0)[i])
    return float(targets[i, labels[i]])


@pytest.mark.parametrize("seed", range(5))
def test_mixup_adds_opposite_images(seed: int) -> None:
    torch.manual_seed(seed)
    images, _ = batch()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    mixed, targets = Mixing(mixup=0.8)(images, labels, 4)
    share = share_of(targets, labels)
    for i in range(6):
        expected = share * images[i] + (1 - share) * images[5 - i]
        torch.testing.assert_close(mixed[i], expected, atol=1e-6, rtol=1e-6)
        own = F.one_hot(labels, 4)
        expected = share * own[i] + (1 - share) * own[5 - i]
        torch.testing.assert_close(targets[i], expected.float())


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_shares_are_the_areas(seed: int) -> None:
    torch.manual_seed(seed)
    images, _ = batch()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    mixed, targets = Mixing(cutmix=1.0)(images, labels, 4)
    for i in range(6):
        own, other = (mixed[i] == images[i]).all(0), (mixed[i] == images[5 - i]).all(0)
        assert bool((own ^ other).all())  # every pixel is of one of the two
        places = other.nonzero()
        if len(places):  # and those of the other are a rectangle
            sides = places.max(0).values - places.min(0).values + 1
            assert int(sides.prod()) == len(places)
    kept = float((mixed[0] == images[0]).all(0).double().mean())
    assert share_of(targets, labels) == pytest.approx(kept, abs=1e-6)


def test_a_rectangle_has_the_drawn_area_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssm_vision import mixing

    class Fixed:
        def __init__(self, *alphas: float) -> None:
            pass

        def sample(self) -> float:
            return 0.75

    monkeypatch.setattr(mixing, "Beta", Fixed)
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 40, 80)
    areas = [float(Mixing(cutmix=1.0)(images, torch.tensor([0, 1]), 2)[0][0].mean()) for _ in "ab"]
    assert max(areas) <= 0.25
    corner = [0, 0]
    monkeypatch.setattr(mixing.torch, "randint", lambda n, shape: torch.tensor(corner.pop()))
    _, targets = Mixing(cutmix=1.0)(images, torch.tensor([0, 1]), 2)
    assert targets[0].tolist() == pytest.approx([1 - 10 * 20 / 3200, 10 * 20 / 3200])


def test_switch_and_probability() -> None:
    images, labels = batch(b=4)
    mixing = Mixing(mixup=0.8, cutmix=1.0, probability=0.6, switch=0.25)
    counts = {"none": 0, "cut": 0, "up": 0}
    for _ in range(1500):
        mixed, _ = mixing(images, labels, 4)
        if mixed is images:
            counts["none"] += 1
        else:
            cut = ((mixed == images) | (mixed == images.flip(0))).all()
            counts["cut" if bool(cut) else "up"] += 1
    assert counts["none"] / 1500 == pytest.approx(0.4, abs=0.05)
    assert counts["cut"] / 1500 == pytest.approx(0.15, abs=0.04)


def test_unmixed_batches_have_plain_targets() -> None:
    images, labels = batch()
    same, targets = Mixing(mixup=1.0, probability=0.0)(images, labels, 4)
    assert same is images
    assert torch.equal(targets, F.one_hot(labels, 4).float())
    assert not Mixing(mixup=1.0, probability=0.0).on
    assert not Mixing().on
    assert Mixing(cutmix=0.1).on


def test_empty_and_single_batches() -> None:
    for b in (0, 1):
        images, labels = batch(b=b)
        mixed, targets = Mixing(mixup=0.8, cutmix=1.0)(images, labels, 4)
        torch.testing.assert_close(mixed, images)
        assert targets.shape == (b, 4)


def test_numbers_come_from_torchs_generator() -> None:
    images, labels = batch()
    torch.manual_seed(1)
    first = Mixing(0.8, 1.0)(images, labels, 4)
    torch.manual_seed(1)
    again = Mixing(0.8, 1.0)(images, labels, 4)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
