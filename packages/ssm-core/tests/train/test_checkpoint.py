import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.train.checkpoint import (
    load_state,
    load_weights,
    save_state,
    save_weights,
    write_atomically,
)
from ssm_core.train.rng import rng_state, set_rng_state

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
tensors = st.builds(
    lambda shape, dtype: torch.randint(0, 2, shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text()
)
states = st.recursive(
    st.one_of(leaves, tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(state=st.dictionaries(st.text(max_size=8), states, max_size=4))
def test_save_state_round_trip(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("ck") / "state.safetensors"
    save_state(path, state)
    assert same(load_state(path), state)


def test_save_state_keys_that_look_like_references(tmp_path):
    state = {"a": {"tensor": "not a tensor", "items": [1]}, "b": {1: torch.ones(2), "1": None}}
    save_state(tmp_path / "s", state)
    assert same(load_state(tmp_path / "s"), state)


def test_save_state_views_of_one_storage_stay_apart(tmp_path):
    base = torch.arange(6.0)
    state = {"whole": base, "part": base[:3], "transposed": base.view(2, 3).t()}
    save_state(tmp_path / "s", state)
    assert same(load_state(tmp_path / "s"), state)


def test_save_state_refuses_code(tmp_path):
    with pytest.raises(TypeError, match=r"state\.f is a builtin_function_or_method"):
        save_state(tmp_path / "s", {"f": print})
    assert list(tmp_path.iterdir()) == []


def test_write_atomically_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def half(part):
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX notion")
def test_write_atomically_gives_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("x")
    write_atomically(tmp_path / "ours", lambda part: part.write_text("x"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("damage", ["cut", "flip header", "empty", "pickle"])
def test_load_state_damaged(tmp_path, damage):
    path = tmp_path / "last.safetensors"
    save_state(path, {"w": torch.randn(50), "n": 3})
    content = path.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "flip header": b"\xff" * 8 + content[8:],
        "empty": b"",
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins.",
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged"):
        load_state(path)
    assert path.read_bytes() == broken


def test_load_state_of_a_weights_file(tmp_path):
    save_weights(tmp_path / "w", nn.Linear(2, 2), {})
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(tmp_path / "w")


def test_load_state_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_state(tmp_path / "none")


def test_save_weights_keeps_ties_and_metadata(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

    model = Tied()
    save_weights(tmp_path / "w", model, {"recipe": "x"})
    state, metadata = load_weights(tmp_path / "w")
    assert metadata == {"recipe": "x"}
    assert same(state, dict(model.state_dict()))


def test_rng_state_round_trip(tmp_path):
    save_state(tmp_path / "s", rng_state())
    first = (torch.rand(3), np.random.rand(3), random.random())
    set_rng_state(load_state(tmp_path / "s"))
    second = (torch.rand(3), np.random.rand(3), random.random())
    assert torch.equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert first[2] == second[2]
