"""All code in the documentation runs, that of the files it includes as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from docsite.blocks import Block, blocks_of
from docsite.page import Page
from docsite.programs import BrokenExample

from ssm_core.errors import SsmError
from ssm_core.plugins import PluginHost
from ssm_kernels import compat, huggingface

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): blocks
    for path in sorted(DOCS.rglob("*.md"))
    if (blocks := [b for b in blocks_of(path, ROOT) if not b.language.startswith("{")])
}
#: why a command may have been checked instead of run
REASONS = {
    *("builds", "installs", "measures for minutes", "needs processes", "needs the hub"),
    *("ran on another page", "takes long", "within a sentence"),
}


@pytest.fixture(scope="session")
def drawn() -> set[str]:
    return set()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: set[str]) -> Iterator[Page]:
    """A page in an empty folder."""
    host = PluginHost()
    for user in ("plugins", "mixers", "bench.measure"):
        monkeypatch.setattr(f"ssm_core.{user}.plugin_host", lambda: host)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    yield Page(host, drawn)
    compat.uninstall()  # a page may show how the stand-ins are installed
    huggingface.restore()


@pytest.mark.parametrize("name", PAGES)
def test_code_of_a_page_runs(page: Page, name: str) -> None:
    for block in PAGES[name]:
        page.run(block)
    for command, outcome in page.commands.done:
        known = outcome == "ran" or outcome in REASONS or outcome.startswith("needs ")
        assert known, f"{command}: {outcome}"


def test_pages_show_code() -> None:
    languages = [block.language for blocks in PAGES.values() for block in blocks]
    assert languages.count("python") > 30
    assert languages.count("sh") > 15
    assert {"tour.md", "install.md", "guides/prune.md", "migration/vim.md"} <= {*PAGES}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("```python\nimport ssm_core\nssm_core.Mambo\n```", AttributeError, "Mambo"),
        ("```sh\nssm-train fit digits-bimambo\n```", SsmError, "digits-bimamba"),
        ("```sh\nssm-train fit digits-bimamba --model.width 3\n```", SsmError, "width"),
        ("```sh\nssm-train fit mnist-rnn --model.width 3\n```", SsmError, "width"),
        ("Like `ssm-train show mnist-rnn --data.rot .`", BrokenExample, "exit code 2"),
        ("```\nssm-train eval runs/none-001\n```", BrokenExample, "exit code 2"),
        ("```sh\nssm-train bench vim_teeny\n```", SsmError, "vim_teeny"),
        ("```sh\nssm-prune verify runs/none-001\n```", BrokenExample, "exit code 2"),
        ("```sh\nmake dmeo\n```", BrokenExample, "no such target"),
        ("```sh\npip install ./packages/ssm-{core,audio}\n```", BrokenExample, "ssm-audio"),
        ("```sh\npip install ssm-text[tokens]\n```", BrokenExample, "no extra tokens"),
        ("```sh\npip install torsh\n```", BrokenExample, "torsh"),
        ("```sh\npython -m ssm_kernel\n```", BrokenExample, "no such module"),
        ("    python tools/no.py", BrokenExample, "no such file"),
        ("```sh\nssm-tarin list\n```", BrokenExample, "unknown program"),
        ("```pyhton\n1 / 0\n```", BrokenExample, "cannot run 'pyhton'"),
        ("```python\n1 / 0\n```", ZeroDivisionError, "division"),
        ("    import ssm_core\n    1 / 0", ZeroDivisionError, "division"),
        ("<!-- setup\n1 / 0\n-->", ZeroDivisionError, "division"),
    ],
)
def test_a_mistake_in_a_page_is_found(
    page: Page, tmp_path: Path, code: str, error: type[Exception], words: str
) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"# A page\n\n{code}\n", encoding="utf-8")
    (block,) = blocks_of(file, tmp_path)
    with pytest.raises(error, match=words):
        page.run(block)


def test_included_code_is_read_with_the_place_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "part.md").write_text("# Part\n\n```python\nx = 2\n```\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- setup\nx = 1\n-->\n\n```{include} part.md\n```\n\n"
        "<!-- with: --out here -->\n\n```sh\nmake\n```\n",
        encoding="utf-8",
    )
    assert blocks_of(page, tmp_path) == [
        Block("setup", "x = 1", "page.md:1"),
        Block("python", "x = 2\n", "part.md:3"),
        Block("sh", "make\n", "page.md:10", options="--out here"),
    ]


def test_a_comment_without_code_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- only checked: slow -->\n\nText.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no code follows"):
        blocks_of(page, tmp_path)


def test_plugins_of_a_page_are_there_for_its_commands(page: Page) -> None:
    for block in PAGES["plugins.md"]:
        page.run(block)
    assert {"linear"} <= {*page.host.table("models")}
    assert {"decay"} <= {*page.host.table("mixers")}
    assert "patience" in page.host.table("stoppers")
    assert "linear" not in PluginHost().table("models")
