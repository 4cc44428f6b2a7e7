"""Our models are in timm's registry whichever is imported first; timm is not imported for it."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from ssm_vision import timm_hook

KNOWN = "assert timm.is_model(name), name\n"
AS_EVER = "import timm.models as m\nassert 'SourceFileLoader' in type(m.__spec__.loader).__name__\n"
SCRIPTS = {
    "ours first": """
import importlib, sys
import ssm_vision
assert "timm" not in sys.modules
import timm.layers  # imports the whole of timm
import timm
assert timm.is_model("vim_tiny_patch16_224")
assert type(timm.models.__spec__.loader).__name__ == "SourceFileLoader"
assert not any("timm_hook" in type(finder).__module__ for finder in sys.meta_path)
importlib.reload(timm.models)
assert timm.is_model("vim_tiny_patch16_224")
""",
    "timm first": """
import timm
assert not timm.is_model("vim_tiny_patch16_224")
import ssm_vision
assert timm.is_model("vim_tiny_patch16_224")
""",
}


@pytest.mark.parametrize("order", SCRIPTS)
def test_orders_of_import(order: str) -> None:
    words = [sys.executable, "-W", "error::UserWarning", "-c", SCRIPTS[order]]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_once_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, timm_hook.AWAITED, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    timm_hook.register_with_timm()
    timm_hook.register_with_timm()
    assert len(sys.meta_path) == 1


def test_a_failure_does_not_keep_anybody_from_timm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, timm_hook.AWAITED, sys)
    monkeypatch.setitem(sys.modules, "ssm_vision.timm_models", None)
    with caplog.at_level(logging.WARNING):
        timm_hook.register_with_timm()
    (line,) = caplog.messages
    assert line.startswith("the models of ssm_vision are not registered with timm")
