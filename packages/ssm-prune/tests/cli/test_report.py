"""`ssm-prune report` and the page at the end of a run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssm_prune import Section, hookimpl
from ssm_prune.cli.main import main
from ssm_prune.loader import PrunePlugins
from ssm_prune.report_page import write_page
from ssm_prune.report_pictures import mask_distances
from ssm_prune.report_run import report_quietly


def load(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "prune_report.json").read_text(encoding="utf-8"))
    return content


class Balanced(HTMLParser):
    """Notes tags that are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> None:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"https?://", text)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))


def test_the_end_of_a_run_leaves_a_page_that_needs_nothing_else(run: Path) -> None:
    text = (run / "prune_report.html").read_text(encoding="utf-8")
    check_page(text)
    assert "masked" in text
    assert "no gain in speed" in text
    assert "ssm-prune 0.1.0" in text
    assert "A = -1" in text
    assert text.count("<img") == 2  # sparsity over time, and per layer


def test_the_report_is_completed_from_the_files(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load(run)
    (run / "prune_report.html").unlink()
    assert main(["report", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "parameters that are not 0" in shown
    assert str(run / "prune_report.html") in shown
    report = load(run)
    check_page((run / "prune_report.html").read_text(encoding="utf-8"))
    assert report["problems"] == []
    dense, pruned = report["costs"]["dense"], report["costs"]["pruned"]
    assert dense["flops"] == pruned["flops"] > 0
    assert dense["parameters"] == pruned["parameters"]
    # biases are 0 before a training and not after it
    assert pruned["nonzero"] == pruned["parameters"] - report["removed_weights"]
    assert report["seed"] == 0
    assert report["trained"]["torch"] == before["trained"]["torch"]
    assert report["latency"]["low"] <= report["latency"]["ratio"] <= report["latency"]["high"]
    assert {t["state"] for t in report["tensors"]} == {"dense", "masked"}
    assert all((t["state"] == "masked") == (t["removed"] > 0) for t in report["tensors"])


def test_the_history_has_the_removed_weights_of_every_tensor(run: Path) -> None:
    report = load(run)
    rows = {t["name"]: t for t in report["tensors"]}
    for update in report["updates"]:
        assert sum(update["removed"]) == update["pruned"]
        assert len(update["removed"]) == len(report["masked_tensors"])
    last = dict(zip(report["masked_tensors"], report["updates"][-1]["removed"], strict=True))
    assert all(rows[name]["removed"] == count for name, count in last.items())


def test_levels_distances_removals_and_sections_are_shown(run: Path, tmp_path: Path) -> None:
    report = load(run)
    for level, update in enumerate(report["updates"]):
        update["level"] = level // 2
        update["accuracy"] = 0.5
    for update, row in zip(report["updates"], [[], [0.25], [0.125, 0.5]], strict=False):
        update["distances"] = row
    assert mask_distances(report) == [[0.0], [0.25, 0.0], [0.5, 0.125, 0.0]]
    report["removals"] = [{"step": 9, "left": 8, "of": 16}]
    report["units"] = "channels"
    plugin: Any = ModuleType("sections")
    failing: Any = ModuleType("failing")

    @hookimpl
    def ssm_prune_report(report: Any) -> list[Section]:
        rows = [("a<b", str(len(report["tensors"])))]
        return [Section("My section", "said & done", ("what", "how many"), rows)]

    plugin.ssm_prune_report = ssm_prune_report

    @hookimpl(specname="ssm_prune_report")
    def broken(report: Any) -> list[Section]:
        raise RuntimeError("no luck")

    failing.broken = broken
    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(plugin, "acme-sections", "1.0")
    plugins.register(failing, "acme-failing", "1.0")
    write_page(report, tmp_path / "page.html", "a run", plugins)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    check_page(text)
    assert text.count("<img") == 3
    assert ">Levels</h2>" in text
    assert "8 of 16 channels" in text
    assert ">My section</h2>" in text
    assert "a&lt;b" in text
    assert "said &amp; done" in text
    assert "has failed: RuntimeError" in text


def test_without_weights_the_rest_is_still_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "model.safetensors").write_bytes(b"nothing")
    assert main(["report", str(run)]) == 0
    assert "damaged" in capsys.readouterr().out
    text = (run / "prune_report.html").read_text(encoding="utf-8")
    assert "damaged" in text
    assert ">Tensors</h2>" in text


def test_a_report_that_fails_does_not_spoil_a_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ssm_prune.report_run.write_page", fail)
    report_quietly(run)
    assert "disk full" in caplog.text
