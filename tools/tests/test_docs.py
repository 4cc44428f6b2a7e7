"""All code in the documentation runs, that of the files it includes as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from docsite.blocks import Block, blocks_of
from docsite.page import Page

from ssm_core.errors import UnknownNameError
from ssm_core.plugins import PluginHost

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT / "docs")): blocks
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if (blocks := blocks_of(page, ROOT))
}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page in an empty folder."""
    host = PluginHost()
    for user in ("plugins", "mixers", "bench.measure"):
        monkeypatch.setattr(f"ssm_core.{user}.plugin_host", lambda: host)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return Page(host)


@pytest.mark.parametrize("name", PAGES)
def test_code_of_a_page_runs(page: Page, name: str) -> None:
    for block in PAGES[name]:
        page.run(block)
    assert all(outcome for _, outcome in page.commands.done)
