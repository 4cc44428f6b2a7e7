"""The page: complete, closed in itself, and safe whatever names hold."""

from __future__ import annotations

import base64
import struct
import sys
from pathlib import Path

import pytest

from ssm_core.specs import Picture, Remark
from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.page import Page, html
from ssm_core.train.report.style import STYLE

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from page_checks import Page as Read

EVIL = "<script>alert('1')</script>\"' onload=x &amp; <b>"
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 320, 200)


def facts(name: str) -> RunFacts:
    return RunFacts(
        Path(name), name, config={"recipe": name, "data": {"name": name}, "model": {"x": name}}
    )


def picture(folder: Path, name: str, run: Path | None = None, **words: str) -> Picture:
    (folder / name).write_bytes(PNG)
    return Picture(folder / name, run, **words)


def test_all_runs_and_all_pictures_are_there(tmp_path):
    runs = [facts("first"), facts("second")]
    pictures = [
        picture(tmp_path, "common.png", title="Curves", text="of all"),
        picture(tmp_path, "own.png", Path("second"), title="Own", text="of one"),
        picture(tmp_path, "bare.png"),
        picture(tmp_path, "stranger.png", Path("elsewhere"), title="Stranger"),
    ]
    read = Read(html(Page(runs, pictures, [])))
    images = read.all("img")
    assert [image["alt"] for image in images] == [
        "Curves: all runs", "bare: all runs", "Stranger: all runs", "Own: second",
    ]  # fmt: skip
    code = base64.b64encode(PNG).decode()
    assert {image["src"] for image in images} == {f"data:image/png;base64,{code}"}
    assert {image["width"] for image in images} == {"192"}  # 320 pixels at 160 per inch
    assert len(read.all("figcaption")) == 2
    assert [section.get("id") for section in read.all("section")] == [None, "run-0", "run-1", None]
    assert [link["href"] for link in read.all("a")] == ["#run-0", "#run-1"]
    for text in ("2 runs of first, second", "Curves", "of all", "Own", "of one", "model.x"):
        assert text in read.text


def test_nothing_from_elsewhere(tmp_path):
    page = html(Page([facts("a")], [picture(tmp_path, "a.png")], []))
    read = Read(page)
    assert read.references == []
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {
        t for t, _ in read.elements
    }
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    policies = [m for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")


def test_names_are_escaped(tmp_path):
    run = facts(EVIL)
    run.problems = [EVIL + " problem"]
    run.versions = {"torch": EVIL}
    pictures = [
        picture(tmp_path, "a.png", run.folder, title=EVIL, text=EVIL),
        Picture(tmp_path / "<i>.txt"),
    ]
    other = facts("other")
    page = html(Page([run, other], pictures, [Remark(run.folder, EVIL + " remark")]))
    read = Read(page)
    assert not {"script", "b", "i"} & {tag for tag, _ in read.elements}
    assert not any("onload" in attributes for _, attributes in read.elements)
    assert read.all("img")[0]["alt"] == f"{EVIL}: {EVIL}"
    assert f"{EVIL} problem" in read.text
    assert f"{EVIL} remark" in read.text
    assert "<i>.txt" in read.text


def test_a_page_is_a_document_with_headings_in_order(tmp_path):
    page = html(Page([facts("a")], [picture(tmp_path, "a.png", Path("a"))], []))
    assert page.startswith("<!DOCTYPE html>")
    read = Read(page)
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("title")) == len(read.all("h1")) == len(read.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in read.elements if tag in ("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(cell["scope"] in ("col", "row") for cell in read.all("th"))
    assert read.all("nav") == []  # of one run there is nothing to find


def test_every_media_type_and_what_is_none(tmp_path):
    names = ["a.svg", "a.JPG", "a.gif", "a.webp", "a.txt"]
    pictures = [picture(tmp_path, name) for name in names]
    read = Read(html(Page([facts("a")], pictures, [])))
    kinds = [(image["src"] or "").partition(";")[0] for image in read.all("img")]
    assert kinds == ["data:image/svg+xml", "data:image/jpeg", "data:image/gif", "data:image/webp"]
    assert "a.txt" in read.text


def test_a_missing_picture_is_named(tmp_path):
    read = Read(html(Page([facts("a")], [Picture(tmp_path / "gone.png")], [])))
    assert read.all("img") == []
    assert f"{tmp_path / 'gone.png'}: No such file" in read.text


@pytest.mark.parametrize("count", [0, 1, 12])
def test_any_number_of_runs(count):
    read = Read(html(Page([facts(f"run-{i}") for i in range(count)], [], [])))
    rows = [cell for cell in read.all("th") if cell["scope"] == "row"]
    assert len(rows) >= 2 * count
