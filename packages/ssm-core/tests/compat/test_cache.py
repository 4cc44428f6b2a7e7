"""What a decoding loop hands from call to call."""

from __future__ import annotations

import torch

from ssm_core.compat.cache import InferenceParams, last_inputs, shift_in


def test_reset_keeps_the_caches() -> None:
    params = InferenceParams(5, 2, seqlen_offset=3, lengths_per_sample=torch.ones(2))
    params.key_value_memory_dict[0] = "cache"
    params.reset(7, 4)
    assert (params.max_seqlen, params.max_batch_size, params.seqlen_offset) == (7, 4, 0)
    assert params.key_value_memory_dict == {0: "cache"}
    assert not params.lengths_per_sample.any()
    assert InferenceParams(5, 2).key_value_memory_dict is not params.key_value_memory_dict


def test_last_inputs() -> None:
    x = torch.arange(1.0, 6.0).view(1, 5, 1)
    assert last_inputs(x, 3, None).tolist() == [[[3.0, 4.0, 5.0]]]
    assert last_inputs(x[:, :2], 3, None).tolist() == [[[0.0, 1.0, 2.0]]]
    packed = last_inputs(x, 3, torch.tensor([0, 1, 1, 5]))
    assert packed.tolist() == [[[0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]], [[3.0, 4.0, 5.0]]]


def test_shift_in() -> None:
    state = torch.tensor([[[1.0, 2.0, 3.0]]])
    shift_in(state, torch.tensor([[4.0]], dtype=torch.float64))
    assert state.tolist() == [[[2.0, 3.0, 4.0]]]
