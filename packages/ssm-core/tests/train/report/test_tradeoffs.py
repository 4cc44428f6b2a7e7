"""The metric against size and speed: who is compared, where names stand."""

from pathlib import Path

import pytest

from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.figures import new_figure
from ssm_core.train.report.throughput import Throughput
from ssm_core.train.report.tradeoffs import Point, _draw, _name_points, comparable, draw_tradeoffs


def run(name: str, value: float, data: str = "digits", measured: bool = False) -> RunFacts:
    return RunFacts(
        Path(name),
        name,
        config={"data": {"name": data}},
        status={"monitor": "accuracy", "parameters": 1000 + len(name)},
        curves={"eval/accuracy": [(1, value)]},
        higher_is_better=True,
        throughput=Throughput(100 * value, measured),
    )


def test_only_runs_that_share_data_and_metric_are_compared():
    runs = [run("a", 0.5), run("b", 0.6, "mnist"), run("c", 0.7), run("d", 0.8)]
    runs[3].curves = {}
    assert comparable(runs) == {("digits", "accuracy"): [0, 2]}
    assert comparable(runs[:2]) == {}


def test_a_picture_with_its_numbers_in_words(tmp_path):
    pictures = draw_tradeoffs([run("a", 0.5), run("long", 0.75, measured=True)], tmp_path)
    assert [p.path.name for p in pictures] == ["tradeoff-accuracy-digits.png"]
    assert pictures[0].path.read_bytes().startswith(b"\x89PNG")
    assert (
        "a: 0.5 with 1,001 parameters at 50 examples/s; long: 0.75 with 1,004" in pictures[0].text
    )
    assert pictures[0].run is None


def test_a_run_without_throughput_is_in_the_left_panel_only(tmp_path):
    slow = run("slow", 0.5)
    slow.throughput = None
    (picture,) = draw_tradeoffs([slow, run("b", 0.6)], tmp_path)
    assert "slow: 0.5 with 1,004 parameters;" in picture.text


@pytest.mark.parametrize("n", [1, 6])
def test_names_stand_apart_and_inside(n):
    figure = new_figure(5, 4)
    axes = figure.add_subplot()
    points = [Point(f"a-rather-long-name-{i}", 100 + 0.5 * i, 0.9, "#000000") for i in range(n)]
    _draw(axes, points)
    figure.draw_without_rendering()
    _name_points(axes)
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert sorted(t.get_text() for t in axes.texts) == [p.name for p in points]
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_measured_points_are_hollow():
    axes = new_figure(3, 3).add_subplot()
    _draw(axes, [Point("a", 1, 1, "#123456"), Point("b", 2, 1, "#123456", hollow=True)])
    assert [line.get_markerfacecolor() for line in axes.get_lines()] == ["#123456", "white"]
    assert axes.get_xscale() == "linear"


def test_a_wide_range_is_logarithmic():
    axes = new_figure(3, 3).add_subplot()
    _draw(axes, [Point("a", 1e4, 1, "#123456"), Point("b", 2e6, 1, "#123456")])
    assert axes.get_xscale() == "log"
