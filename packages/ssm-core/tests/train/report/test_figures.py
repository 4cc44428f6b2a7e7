"""Curves of several runs."""

from pathlib import Path

import pytest

from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.figures import COLOURS, _draw_metric, colour, draw_curves, new_figure


def run(name: str, **curves: list[tuple[int, float]]) -> RunFacts:
    return RunFacts(Path(name), name, curves={k.replace("_", "/"): v for k, v in curves.items()})


def test_what_is_drawn(tmp_path):
    points = [(1, 1.0), (2, 0.5)]
    runs = [
        run("a", train_loss=points, eval_loss=points, time_x=points),
        run("b", eval_zeal=[(i, -1.0) for i in range(40)]),
        run("c"),
    ]
    picture = draw_curves(runs, tmp_path / "curves.png")
    assert picture is not None
    assert picture.path.read_bytes().startswith(b"\x89PNG")
    assert picture.text.startswith("train/loss, eval/loss, eval/zeal against optimizer steps")


def test_a_loss_that_is_not_positive_and_many_runs(tmp_path):
    runs = [run(f"r{i}", train_loss=[(1, float(-i)), (2, 0.0)]) for i in range(30)]
    picture = draw_curves(runs, tmp_path / "curves.png")
    assert picture is not None
    assert picture.path.is_file()


@pytest.mark.parametrize(
    ("name", "last", "scale"),
    [("train_loss", 0.1, "log"), ("train_loss", 0.9, "linear"), ("train_loss", 0.0, "linear"),
     ("eval_accuracy", 0.1, "linear")],
)  # fmt: skip
def test_losses_that_fall_far_are_logarithmic(name, last, scale):
    axes = new_figure(3, 3).add_subplot()
    _draw_metric(axes, name.replace("_", "/"), [run("a", **{name: [(1, 1.0), (2, last)]})])
    assert axes.get_yscale() == scale


def test_overfitting_is_seen_in_one_panel():
    """The losses of both kinds share an axis, in the colour of their run; one has a label."""
    axes = new_figure(3, 3).add_subplot()
    trained, held_out = [(1, 2.0), (2, 0.1)], [(1, 2.1), (2, 2.5)]
    runs = [run("a", eval_loss=held_out), run("b", train_loss=trained, eval_loss=held_out)]
    _draw_metric(axes, "eval/loss", runs)
    lines = [(line.get_color(), line.get_label(), list(line.get_ydata())) for line in axes.lines]
    assert lines[:2] == [(COLOURS[0], "a", [2.1, 2.5]), (COLOURS[1], "b", [2.1, 2.5])]
    assert lines[2][0] == COLOURS[1]
    assert lines[2][1].startswith("_")
    assert lines[2][2] == [2.0, 0.1]
    assert axes.get_yscale() == "log"
    _draw_metric(axes := new_figure(3, 3).add_subplot(), "train/loss", runs)
    assert len(axes.lines) == 1


def test_nothing_was_logged(tmp_path):
    assert draw_curves([run("a"), run("b", time_step=[(1, 1.0)])], tmp_path / "c.png") is None
    assert draw_curves([], tmp_path / "c.png") is None
    assert not (tmp_path / "c.png").exists()


def test_colours_come_round():
    assert len({colour(i) for i in range(len(COLOURS))}) == len(COLOURS)
    assert colour(len(COLOURS)) == colour(0)
