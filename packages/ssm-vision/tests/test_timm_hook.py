"""Our models are in timm's registry whichever is imported first, and timm is not imported for it."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from ssm_vision import timm_hook
from ssm_vision.models.registry import FAMILIES

KNOWN = "assert timm.is_model(name), name\n"
AS_EVER = "import timm.models as m\nassert 'SourceFileLoader' in type(m.__spec__.loader).__name__\n"
SCRIPTS = {
    "ours first": "import ssm_vision, sys\nassert 'timm' not in sys.modules\n"
    "import timm\n" + KNOWN + AS_EVER + "assert not any('timm_hook' in "
    "type(f).__module__ for f in sys.meta_path)\n",
    "timm first": "import timm\nassert not timm.is_model(name)\nimport ssm_vision\n" + KNOWN,
    "by hand": "import ssm_vision.timm_models, timm\n" + KNOWN,
    "only a part of timm": "import ssm_vision\nimport timm.layers\nimport timm\n" + KNOWN,
    "reloaded": "import ssm_vision, importlib\nimport timm.models\n"
    "importlib.reload(timm.models)\n" + KNOWN,
}


@pytest.mark.parametrize("order", SCRIPTS)
def test_orders_of_import(order: str) -> None:
    name = next(iter(FAMILIES.values())).keys()
    script = f"name = {next(iter(name))!r}\n{SCRIPTS[order]}"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script], capture_output=True, text=True
    )
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
