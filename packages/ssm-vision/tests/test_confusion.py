from __future__ import annotations

import pytest
import torch

from ssm_vision.confusion import confusion_figure, describe


def test_confusion_figure_counts() -> None:
    counts = torch.tensor([[8, 2, 0], [0, 9, 1], [0, 0, 0]])
    figure = confusion_figure(counts, ("ant", "bee", "cat"), "my run")
    axes = figure.axes[0]
    assert axes.get_title() == "my run\naccuracy 85.00% of 20 images"
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "8", "9"]
    shown = axes.images[0].get_array()
    assert shown.tolist() == [[0.0, 20.0, 0.0], [0.0, 0.0, 10.0], [0.0, 0.0, 0.0]]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ant", "bee", "cat"]


def test_confusion_figure_without_names_and_without_mistakes() -> None:
    figure = confusion_figure(torch.eye(4, dtype=torch.int64), (), "perfect")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("n", "numbers", "names"), [(30, 30, 30), (31, 0, 31), (61, 0, None)])
def test_many_classes_lose_their_numbers_and_then_their_names(
    n: int, numbers: int, names: int | None
) -> None:
    figure = confusion_figure(
        torch.eye(n, dtype=torch.int64), [f"class {i}" for i in range(n)], "t"
    )
    axes = figure.axes[0]
    assert len(axes.texts) == numbers
    shown = [t.get_text() for t in axes.get_yticklabels() if t.get_text().startswith("class")]
    assert len(shown) == (names or 0)


def test_in_words() -> None:
    counts = torch.tensor([[8, 2, 0], [1, 9, 3], [0, 0, 0]])
    assert describe(counts, ("ant", "bee", "cat")) == (
        "17 of 23 images are classified correctly (73.91%). Most frequent mistakes: bee taken for "
        "cat (3x), ant taken for bee (2x), bee taken for ant (1x)."
    )
    assert describe(torch.eye(2, dtype=torch.int64), ()) == (
        "2 of 2 images are classified correctly (100.00%)."
    )
    assert describe(torch.zeros(2, 2, dtype=torch.int64), ()) == (
        "0 of 0 images are classified correctly."
    )
