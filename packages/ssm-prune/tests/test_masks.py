from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_prune.masks import MaskStore, pack_bits, unpack_bits


def bits_of(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int16 if values.element_size() == 2 else torch.int32)


@given(flags=st.lists(st.booleans(), max_size=40))
def test_packed_masks_come_back_and_are_plain_little_endian_bits(flags: list[bool]) -> None:
    mask = torch.tensor(flags, dtype=torch.bool)
    packed = pack_bits(mask)
    assert packed.numel() == (len(flags) + 7) // 8
    assert torch.equal(unpack_bits(packed, mask.shape), mask)
    unpacked = np.unpackbits(packed.numpy(), bitorder="little")[: len(flags)]
    assert unpacked.tolist() == [int(flag) for flag in flags]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_enforcing_gives_plus_zero_whatever_was_there(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.tensor([[-1.0, float("nan"), float("-inf"), 2.0]], dtype=dtype))
    optimizer = torch.optim.SGD([weight], momentum=0.9)
    momentum = torch.tensor([[-3.0, float("nan"), 1.0, 4.0]], dtype=dtype)
    unrelated = torch.tensor(-7.0)
    optimizer.state[weight] = {"momentum_buffer": momentum, "step": unrelated}
    weight.grad = momentum.clone()
    store = MaskStore({"w": weight.shape})
    store.replace({"w": torch.tensor([[False, False, False, True]])})
    store.zero_gradients([("w", weight)])
    store.enforce([("w", weight)], optimizer)
    for tensor, kept in ((weight.detach(), 2.0), (momentum, 4.0), (weight.grad, 4.0)):
        assert not bits_of(tensor[0, :3]).any()  # -0 has a sign bit
        assert tensor[0, 3] == kept
    assert unrelated == -7.0


def test_an_average_is_masked_where_the_weights_are() -> None:
    store = MaskStore({"a": torch.Size([2, 2]), "b": torch.Size([2])})
    store.replace({"a": torch.tensor([[True, False], [False, True]])})
    average = {"a": torch.tensor([[-1.0, -2.0], [float("nan"), 3.0]]), "b": torch.tensor([4.0, 5])}
    store.enforce_average(average)
    assert bits_of(average["a"]).tolist() == bits_of(torch.tensor([[-1.0, 0], [0, 3]])).tolist()
    assert average["b"].tolist() == [4.0, 5.0]
    store.enforce_average({})  # a run without one


@given(flips=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8)), max_size=6))
def test_digests_are_equal_exactly_when_masks_are(flips: list[tuple[str, int]]) -> None:
    shapes = {"a": torch.Size([3, 3]), "b": torch.Size([9])}
    start = {n: torch.arange(9).view(s) % 2 == 0 for n, s in shapes.items()}
    one, other = MaskStore(shapes), MaskStore(shapes)
    one.replace(start)
    changed = {name: mask.clone() for name, mask in reversed(start.items())}
    for name, place in flips:
        changed[name].view(-1)[place] ^= True
    other.replace(changed)
    same = all(torch.equal(start[name], changed[name]) for name in start)
    assert (one.digest() == other.digest()) == same
    assert -(2**63) <= one.digest() < 2**63


def test_counts_follow_the_masks() -> None:
    store = MaskStore({"a": torch.Size([2, 3]), "b": torch.Size([4])})
    assert (store.total, store.total_pruned) == (10, 0)
    store.replace({"a": torch.tensor([[True, False, True], [False, True, True]])})
    assert (store.pruned("a"), store.pruned("b"), store.total_pruned) == (2, 0, 2)
    store.replace({"a": torch.ones(2, 3, dtype=torch.bool)})
    assert store.total_pruned == 0
    assert store.state_dict() == {}


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(2, 3),
        torch.ones(3, 2, dtype=torch.bool),
        torch.ones(2, 3, dtype=torch.int),
    ],
)
def test_masks_of_another_shape_or_type_are_refused(mask: torch.Tensor) -> None:
    store = MaskStore({"a": torch.Size([2, 3])})
    with pytest.raises(ValueError, match="mask of a is"):
        store.replace({"a": mask})


def test_a_state_comes_back() -> None:
    torch.manual_seed(0)
    store = MaskStore({"a": torch.Size([5, 3]), "b": torch.Size([7])})
    store.replace({"a": torch.rand(5, 3) > 0.5})
    other = MaskStore(store.shapes)
    other.replace({"b": torch.zeros(7, dtype=torch.bool)})
    other.load_state_dict(store.state_dict())
    assert torch.equal(other.mask("a"), store.mask("a"))
    assert other.pruned("b") == 0
    assert other.total_pruned == store.total_pruned


def test_a_state_of_another_model_is_refused() -> None:
    store = MaskStore({"a": torch.Size([5])})
    store.replace({"a": torch.zeros(5, dtype=torch.bool)})
    with pytest.raises(CheckpointError, match=r"mask \(5,\) for a, but the model has \(4,\)"):
        MaskStore({"a": torch.Size([4])}).load_state_dict(store.state_dict())
    with pytest.raises(CheckpointError, match="nothing prunable there"):
        MaskStore({"b": torch.Size([5])}).load_state_dict(store.state_dict())
