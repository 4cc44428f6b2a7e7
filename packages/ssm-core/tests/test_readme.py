"""The examples of the README and of the notes for plugins run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssm_core import SequenceLayer, SsmError, Tower, TowerConfig, make_config

PACKAGE = Path(__file__).parents[1]


def examples(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_runs_from_top_to_bottom() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    blocks = examples(PACKAGE / "README.md")
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["y"].shape == (1, 106, 64)
    assert names["states"].ssm.shape[0] == 3
    assert len(names["optimizer"].param_groups) >= 3


@pytest.mark.parametrize("number", range(3))
def test_plugin_examples_register_something(number: int) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    blocks = [b for b in examples(PACKAGE / "docs" / "plugins.md") if "ssm_register_" in b]
    assert len(blocks) == 3
    exec(compile(blocks[number], "plugins.md", "exec", dont_inherit=True), names)
    specs = [value() for name, value in names.items() if name.startswith("ssm_register_")]
    assert specs
    assert specs[0][0].summary


def test_report_example_draws(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    (block,) = (b for b in examples(PACKAGE / "docs" / "plugins.md") if "def ssm_report" in b)
    exec(compile(block, "plugins.md", "exec", dont_inherit=True), names)
    runs = [tmp_path / "new", tmp_path / "done"]
    for run in runs:
        run.mkdir()
    (runs[1] / "model.safetensors").write_bytes(bytes(10))
    remark, picture = names["ssm_report"](runs, tmp_path)
    assert (remark.run, picture.run) == (runs[0], runs[1])
    assert picture.path == tmp_path / "weights-done.svg"
    assert picture.path.read_text().startswith("<svg")


def test_mixer_of_a_third_party_has_the_whole_protocol() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    (block,) = (b for b in examples(PACKAGE / "docs" / "plugins.md") if "ssm_register_mixers" in b)
    exec(compile(block, "plugins.md", "exec", dont_inherit=True), names)
    (spec,) = names["ssm_register_mixers"]()
    torch.manual_seed(0)

    def make() -> SequenceLayer:
        layer: SequenceLayer = spec.build(4, make_config(spec.config, {"slowest": 9}, "options"))
        return layer

    tower = Tower(make, TowerConfig(d_model=4, n_layers=2)).double()
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    y, last = tower(x, return_state=True)
    first, state = tower(x[:, :5], return_state=True)
    second, state = tower(x[:, 5:8], state=state, return_state=True)
    third, state = tower.step(x[:, 8], state)
    pieces = torch.cat([first, second, third.unsqueeze(1)], dim=1)
    torch.testing.assert_close(pieces, y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)
    packed = tower(x.flatten(0, 1).unsqueeze(0), cu_seqlens=torch.tensor([0, 9, 18]))
    torch.testing.assert_close(packed.view_as(y), y, rtol=1e-10, atol=1e-10)
    mask = torch.tensor([[False] * 3 + [True] * 6, [True] * 9])
    torch.testing.assert_close(tower(x, mask=mask)[1], y[1], rtol=1e-10, atol=1e-10)
    y.sum().backward()
    assert all(p.grad is not None for p in tower.parameters())
    assert isinstance(make().out, nn.Linear)
    with pytest.raises(SsmError):
        make()(torch.zeros(2, 3, 5))
