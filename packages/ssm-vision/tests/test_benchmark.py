"""The image models that `ssm-train bench` times."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from ssm_core.bench.cases import Case, Conditions
from ssm_core.bench.measure import measure
from ssm_core.cli import main
from ssm_vision import zoo
from ssm_vision.benchmark import BENCHMARK


@pytest.mark.slow
def test_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own: one that works, and one that needs more memory than there is."""
    words = ["mnist_rnn", "--image-size", "8", "--batch-size", "2", "100000000000"]
    words += ["--seconds", "0.01", "--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["bench", *words]) == 0
    first, header, fine, failed, *paths = capsys.readouterr().out.splitlines()
    assert first == "cpu, threads: 1, float32"
    assert header.split()[:3] == ["model", "image_size", "batch_size"]
    assert fine.split()[:4] == ["mnist_rnn", "8", "2", "inference"]
    assert failed.endswith("out of memory")
    assert paths == [str(tmp_path / "bench.csv"), str(tmp_path / "bench.png")]
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["", "out of memory"]
    assert float(rows[0]["images_per_s"]) > 0


def test_every_name_is_known_and_the_baselines_are_marked() -> None:
    models = BENCHMARK.models()
    assert list(models) == zoo.list_models()
    assert {name for name, baseline in models.items() if baseline} == {
        name for family in zoo.BASELINES for name in zoo.list_models(family=family)
    }


def test_a_model_gets_images_of_its_size() -> None:
    model = BENCHMARK.build("mnist_rnn", 12)
    images = BENCHMARK.inputs(model, 3, 12)
    assert images.shape == (3, 1, 12, 12)  # channels are the model's
    logits = model(images)
    assert logits.shape == (3, 10)
    assert BENCHMARK.loss(logits, images).shape == torch.Size([])
    row = measure(
        Case("image models", "mnist_rnn", 12, 3, "training"), Conditions(seconds=0.01), BENCHMARK
    )
    assert row.per_s == pytest.approx(3 / row.latency_ms * 1e3)
