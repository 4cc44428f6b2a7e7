"""Every hook is in the README with exactly its arguments."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from ssm_prune import hookspecs

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
HOOKS = [n for n, f in inspect.getmembers(hookspecs, inspect.isfunction) if n.startswith("ssm_")]


def test_the_hooks_of_this_version() -> None:
    assert HOOKS == [
        "ssm_prune_adapter",
        "ssm_prune_check",
        "ssm_prune_export",
        "ssm_prune_masks_changed",
        "ssm_prune_methods",
        "ssm_prune_policy",
        "ssm_prune_report",
        "ssm_prune_schedules",
        "ssm_prune_scores",
    ]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    function = getattr(hookspecs, hook)
    arguments = ", ".join(inspect.signature(function).parameters)
    assert f"`{hook}({arguments})`" in README
    assert function.__doc__
