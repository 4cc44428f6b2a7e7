"""`Mamba3` of mamba_ssm beside the layer: values, caches, packed sequences, refusals."""

from __future__ import annotations

import pytest
import torch
from compat_cases import random, strong

import ssm_core
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba3 import Mamba3
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError


def small(**options: object) -> Mamba3:
    return strong(Mamba3(8, 6, headdim=4, **options))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rope_fraction", [0.5, 1.0])
def test_is_the_layer(norm: bool, rope_fraction: float) -> None:
    options = {"ngroups": 2, "is_outproj_norm": norm, "rope_fraction": rope_fraction}
    mixer = small(**options)
    config = ssm_core.Mamba3Config(d_state=6, headdim=4, **options)
    layer = ssm_core.Mamba3(8, config).double()
    layer.load_state_dict(mixer.state_dict())
    x = random(2, 7, 8)
    torch.testing.assert_close(mixer(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("prompt", [1, 4])
def test_prompt_then_steps_give_the_whole_sequence(context, prompt: int) -> None:
    mixer = small(layer_idx=3)
    x = random(2, 7, 8)
    expected = mixer(x).detach()
    with context():
        params = InferenceParams(max_seqlen=7, max_batch_size=2)
        pieces = [mixer(x[:, :prompt], inference_params=params)]
        params.seqlen_offset += prompt
        held = params.key_value_memory_dict[3]
        for t in range(prompt, 6):
            pieces.append(mixer(x[:, t : t + 1], inference_params=params))
        last, *states = mixer.step(x[:, 6], *held)  # the original's steps have no axis l
        pieces.append(last.unsqueeze(1))
    assert all(a is b for a, b in zip(states, held, strict=True))
    y = torch.cat(pieces, dim=1).detach()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


def test_states_have_the_shapes_of_the_original() -> None:
    mixer = Mamba3(8, 6, headdim=4, dtype=torch.bfloat16)
    states = mixer.allocate_inference_cache(3, 9)
    assert [tuple(part.shape) for part in states] == [
        (3, 4, 1),
        (3, 4, 4, 6),
        (3, 1, 4, 6),
        (3, 4, 4),
    ]
    assert [part.dtype for part in states] == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert mixer.B_bias.dtype == mixer.dt_bias.dtype == torch.float32
    assert mixer.B_norm.weight.dtype == torch.bfloat16


def test_packed_sequences_start_alike() -> None:
    mixer = small(layer_idx=0)
    x = random(1, 9, 8)
    ends = [0, 4, 7]
    offsets = torch.tensor(ends, dtype=torch.int32)
    params = InferenceParams(9, 2)
    y = mixer(x, cu_seqlens=offsets, inference_params=params)
    torch.testing.assert_close(mixer(x, cu_seqlens=offsets), y, rtol=0, atol=0)
    numbers = torch.tensor([[0] * 4 + [1] * 3 + [2] * 2])
    torch.testing.assert_close(mixer(x, seq_idx=numbers), y, rtol=1e-9, atol=1e-9)
    for row in range(2):
        alone = InferenceParams(9, 1)
        piece = x[:, ends[row] : ends[row + 1]]
        own = mixer(piece, inference_params=alone)
        torch.testing.assert_close(y[:, ends[row] : ends[row + 1]], own, rtol=1e-9, atol=1e-9)
        for packed, single in zip(
            params.key_value_memory_dict[0], alone.key_value_memory_dict[0], strict=True
        ):
            torch.testing.assert_close(packed[row : row + 1], single, rtol=1e-6, atol=1e-6)


def test_gradients_through_steps() -> None:
    mixer = small()
    x, weight = random(2, 4, 8), random(2, 4, 8, seed=2)
    expected = torch.autograd.grad((mixer(x) * weight).sum(), mixer.in_proj.weight)
    states = [part.double() for part in mixer.allocate_inference_cache(2, 4)]
    pieces = []
    for t in range(4):
        y, *states = mixer.step(x[:, t], *states)
        pieces.append(y)
    got = torch.autograd.grad((torch.stack(pieces, 1) * weight).sum(), mixer.in_proj.weight)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="use is_mimo=False"):
        Mamba3(64, is_mimo=True)
    with pytest.raises(ConfigError, match="layer_idx is None"):
        small()(random(1, 3, 8), inference_params=InferenceParams(9, 1))
    mixer = small(layer_idx=0)
    with pytest.raises(ShapeError, match=r"expected \(b, d\) or \(b, 1, d\)"):
        mixer.step(random(1, 2, 8), *mixer.allocate_inference_cache(1, 9))
    with pytest.raises(ShapeError, match="Mamba3: seq_idx"):
        mixer(random(1, 3, 8), seq_idx=torch.zeros(1, 4, dtype=torch.long))


def test_others_of_its_arguments_are_ignored() -> None:
    assert Mamba3(64, dropout=0.1, n_layer=3, use_fast_path=True).layer_idx is None
