"""The overlay pictures, from their pixels to the report of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from ssm_core.cli import main
from ssm_vision.visualize_segmentation import (
    INVENTED,
    MISSED,
    OPACITY,
    WRONG,
    Segmented,
    colour_of,
    coloured,
    errors,
    segmentation_figure,
)


def test_classes_are_coloured_and_the_background_is_not() -> None:
    base = np.random.default_rng(0).random((2, 3, 3))
    classes = torch.tensor([[0, 1, 2], [-1, 9, 0]])
    picture = coloured(base, classes)
    for place, number in (((0, 1), 1), ((0, 2), 2), ((1, 1), 1)):  # the colours begin again
        expected = (1 - OPACITY) * base[place] + OPACITY * np.array(to_rgb(colour_of(number)))
        np.testing.assert_allclose(picture[place], expected)
    for place in ((0, 0), (1, 0), (1, 2)):
        np.testing.assert_allclose(picture[place], base[place])


def test_errors_are_missed_or_invented() -> None:
    base = np.full((1, 4, 3), 0.5)
    truth, guess = torch.tensor([[1, 0, 1, -1]]), torch.tensor([[0, 1, 1, 1]])
    picture = errors(base, truth, guess, binary=True)
    np.testing.assert_allclose(picture[0, 0], to_rgb(MISSED))
    np.testing.assert_allclose(picture[0, 1], to_rgb(INVENTED))
    for place in (2, 3):
        assert np.ptp(picture[0, place]) == 0
    several = errors(base, 2 * truth, guess, binary=False)
    np.testing.assert_allclose(several[0, 2], to_rgb(WRONG))
    assert np.ptp(several[0, 3]) == 0


@pytest.mark.parametrize("classes", [1, 3])
def test_figure_names_what_is_drawn(classes: int) -> None:
    shown = []
    for i in range(2):
        truth, guess = (torch.randint(max(classes, 2), (8, 10)) for _ in range(2))
        shown.append(
            Segmented(torch.randn(1 if classes == 1 else 4, 8, 10), truth, guess, f"no {i}")
        )
    labels = ("cell",) if classes == 1 else ("ground", "cat")
    figure = segmentation_figure(shown, labels, "a title")
    assert len(figure.axes) == 8
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "image", "truth", "prediction", "errors",
    ]  # fmt: skip
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    several = ["cat", "class 2", "another class"]
    assert words == (["cell", "missed", "invented"] if classes == 1 else several)


def test_a_run_learns_and_its_report_has_the_picture(tmp_path: Path) -> None:
    """em-vmunet through the engine on bright discs; the picture is in the report."""
    rows, columns = np.mgrid[:56, :40]
    for name in ("image", "label"):
        (tmp_path / "em_membrane" / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(5):
        y, x = random.integers(12, 28, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 100
        pixels = np.clip(100 + 60 * disc + random.normal(0, 20, disc.shape), 0, 255)
        for name, values in (("image", pixels), ("label", 255 * disc)):
            path = tmp_path / "em_membrane" / name / f"{i}.png"
            height = 56 if i == 4 else 48  # pictures may differ in size
            Image.fromarray(values.astype(np.uint8)[:height]).save(path)
    words = ["fit", "em-vmunet", "--data.root", str(tmp_path), "--out", str(tmp_path / "runs")]
    words += ["--data.held_out", "0.4", "--data.size", "32"]
    words += ["--model.dims", "[8, 16]", "--model.depths", "[1, 1]"]
    words += ["--model.depths_decoder", "[1, 1]", "--loader.batch_size", "4"]
    words += ["--optim.lr", "0.01", "--optim.warmup_steps", "0", "--trainer.max_epochs", "null"]
    words += ["--trainer.max_steps", "30", "--trainer.eval_every", "15"]
    assert main(words) == 0
    run = tmp_path / "runs" / "em-vmunet-001"
    picture = run / "report" / f"segmentation-{run.name}.png"
    with Image.open(picture) as opened:
        assert opened.width > 1000
    lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    dice = [float(line.split(",")[3]) for line in lines if ",eval/dice," in line]
    assert dice[-1] > 0.8, dice
