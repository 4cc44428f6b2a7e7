"""What `ssm_kernels.huggingface` changes in transformers, what it refuses, and the way back."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch
from huggingface_models import build, count_calls, mixers, tokens
from torch import Tensor, nn
from transformers.models.mamba import modeling_mamba
from transformers.models.mamba2 import modeling_mamba2
from transformers.utils import import_utils

from ssm_kernels import ArgumentError, BackendError, huggingface
from ssm_kernels.backends import BUILD_HINT
from ssm_kernels.huggingface import dispatch, patch
from ssm_kernels.huggingface.rebind import rebind


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    huggingface.restore()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    result: Tensor = model(tokens()).logits
    return result


def test_one_model_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    model, other = build("Mamba"), build("Mamba")
    theirs = logits(model)
    line = huggingface.accelerate(model)
    assert "2 x MambaMixer" in line
    assert "\n" not in line
    ours = logits(model)
    assert calls.scans == 2
    assert torch.equal(logits(other), theirs)
    assert calls.scans == 2
    assert "nothing new" in huggingface.accelerate(model)
    assert "2 mixers" in huggingface.restore()
    assert all("forward" not in vars(mixer) for mixer in mixers(model))
    assert torch.equal(logits(model), theirs)
    assert calls.scans == 2
    assert not torch.equal(ours, theirs)  # other kernels, other rounding


def test_all_models_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    before = modeling_mamba.MambaMixer.forward
    existing = build("Mamba2")
    line = huggingface.accelerate()
    for name in ("MambaMixer", "Mamba2Mixer", "FalconMambaMixer", "JambaMambaMixer", "BambaMixer"):
        assert name in line
    logits(existing)
    logits(build("Mamba"))
    assert calls.scans == 4
    assert "nothing new" in huggingface.accelerate()
    assert "nothing new" in huggingface.accelerate(existing)
    assert "10 classes" in huggingface.restore()
    assert modeling_mamba.MambaMixer.forward is before
    logits(existing)
    assert calls.scans == 4


def test_a_deleted_model_is_forgotten() -> None:
    huggingface.accelerate(build("Mamba"))
    gc.collect()
    assert "0 mixers" in huggingface.restore()


def test_a_copy_runs_on_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba")
    huggingface.accelerate(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    calls = count_calls(monkeypatch)
    assert logits(twin).abs().max() > 0
    assert calls.scans == 2


def test_hooks_of_accelerate_stay_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build("Mamba"), []
    for mixer in mixers(model):  # as accelerate.hooks.add_hook_to_module does
        mixer._old_forward = mixer.forward

        def hooked(*arguments: Any, own: Any = mixer, **options: Any) -> Tensor:
            seen.append(own)
            output: Tensor = own._old_forward(*arguments, **options)
            return output

        mixer.forward = hooked
    theirs = [mixer._old_forward for mixer in mixers(model)]
    huggingface.accelerate(model)
    calls = count_calls(monkeypatch)
    logits(model)
    assert seen == mixers(model)
    assert calls.scans == 2
    huggingface.restore()
    assert [mixer._old_forward for mixer in mixers(model)] == theirs
    logits(model)
    assert calls.scans == 2


def test_theirs_runs_in_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba")
    theirs = logits(model)
    calls = count_calls(monkeypatch)
    monkeypatch.setattr(import_utils, "is_torchdynamo_exporting", lambda: True)
    huggingface.accelerate(model)
    assert torch.equal(logits(model), theirs)
    assert not any(calls.counts.values())


def test_theirs_runs_where_ours_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba2")
    theirs = logits(model)
    calls = count_calls(monkeypatch)
    huggingface.accelerate(model)
    monkeypatch.setattr(dispatch, "why_not_native", lambda device, index: BUILD_HINT)
    assert torch.equal(logits(model), theirs)
    assert not any(calls.counts.values())


def test_packed_sequences_are_refused_as_before() -> None:
    model = build("Mamba2")
    huggingface.accelerate(model)
    with pytest.raises(ValueError, match="packed sequences"):
        mixers(model)[0](torch.randn(1, 3, 32), seq_idx=torch.zeros(1, 3, dtype=torch.int32))


@pytest.mark.parametrize("version", ["4.57.6", "5.15.1", "6.0.0.dev0"])
def test_other_versions_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    with pytest.raises(BackendError, match=rf"transformers {version} .*>=5\.16,<6"):
        huggingface.accelerate()


@pytest.mark.parametrize("version", ["5.16.0", "5.23.1", "5.30.0.dev0"])
def test_versions_of_the_range_are_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    assert f"transformers {version}: 2 x MambaMixer" in huggingface.accelerate(build("Mamba"))


def test_a_missing_transformers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match="pip install"):
        huggingface.accelerate()


def test_missing_kernels_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "why_not_native", lambda device, index: BUILD_HINT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="build them"):
        huggingface.accelerate()


def test_other_arguments_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(hidden_states: Tensor, step: Tensor) -> None: ...

    before = modeling_mamba.MambaMixer.forward
    monkeypatch.setattr(modeling_mamba, "mamba_selective_scan", changed)
    model = build("Mamba")
    for target in (None, model):
        with pytest.raises(BackendError, match=r"takes \(hidden_states, step\), expected"):
            huggingface.accelerate(target)
    assert modeling_mamba.MambaMixer.forward is before
    assert "0 classes and 0 mixers" in huggingface.restore()


def test_a_mixer_that_calls_something_else_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = modeling_mamba2.Mamba2Mixer.forward
    monkeypatch.setattr(modeling_mamba.MambaMixer, "forward", lambda self, hidden_states: None)
    with pytest.raises(BackendError, match="modeling_mamba has no mixer that calls"):
        huggingface.accelerate()
    assert modeling_mamba2.Mamba2Mixer.forward is before


def test_a_model_without_mixers_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Linear has no Mamba mixer"):
        huggingface.accelerate(nn.Linear(1, 1))


def _twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        return 2 * function(*arguments)

    return call


@_twice
@_twice
def _decorated(x: int, *, offset: int = 10) -> int:
    """Doubly doubled."""
    return _term(x) + offset


def _term(x: int) -> int:
    return x


def test_rebind_looks_names_up_elsewhere() -> None:
    copied = rebind(_decorated, {"_term": lambda x: 100 * x})
    assert copied(1) == 4 * (100 + 10)
    assert _decorated(1) == 4 * (1 + 10)
    assert copied.__doc__ == _decorated.__doc__
    again = rebind(copied, {"_term": lambda x: 1000 * x})
    assert (again(1), copied(1)) == (4 * 1010, 4 * 110)


def test_rebind_refuses_a_wrapper_it_cannot_see_through() -> None:
    @wraps(_term)
    def opaque(x: int) -> int:
        return globals()["_term"](x)  # type: ignore[no-any-return]

    with pytest.raises(BackendError, match="decorated in an unknown way"):
        rebind(opaque, {})
