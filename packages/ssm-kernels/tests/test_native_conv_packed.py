"""The compiled convolution of packed sequences: each one as if it were alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_kernels import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 3, 5, 63, 64, 65, 256, 257, 300]), max_size=7),
    d=st.sampled_from([1, 17, 300]),
    k=st.integers(1, 8),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    reverse=st.booleans(),
    carry=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_packed_sequences_are_separate_convolutions(
    lengths: list[int],
    d: int,
    k: int,
    dtype: torch.dtype,
    reverse: bool,
    carry: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    l, s = sum(lengths), len(lengths)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x, grad_y = torch.randn(1, l, d).to(dtype), torch.randn(1, l, d).to(dtype)
    weight, bias = torch.randn(d, k, dtype=wide), torch.randn(d, dtype=wide)
    states = torch.randn(s, d, k - 1, dtype=wide) if carry else None
    grad_states = torch.randn(s, d, k - 1, dtype=wide)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    options = {"silu": True, "reverse": reverse}
    y, final = native.causal_conv1d_forward(x, weight, bias, states, **options, offsets=offsets)
    gradients = native.causal_conv1d_backward(
        grad_y, grad_states, x, weight, bias, states, **options, offsets=offsets
    )
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for row, first in enumerate(offsets[:-1].tolist()):
        steps, own = slice(first, first + lengths[row]), slice(row, row + 1)
        state = None if states is None else states[own]
        alone_y, alone_final = native.causal_conv1d_forward(
            x[:, steps], weight, bias, state, **options
        )
        assert torch.equal(y[:, steps], alone_y)
        assert torch.equal(final[own], alone_final)
        alone = native.causal_conv1d_backward(
            grad_y[:, steps], grad_states[own], x[:, steps], weight, bias, state, **options
        )
        assert torch.equal(gradients[0][:, steps], alone[0])
        assert states is None or torch.equal(gradients[3][own], alone[3])
        grad_weight, grad_bias = grad_weight + alone[1], grad_bias + alone[2]
    scale = max(1.0, grad_weight.abs().max().item()) if l else 1.0
    assert (gradients[1] - grad_weight).abs().max().item() <= 1e-5 * scale
    assert (gradients[2] - grad_bias).abs().max().item() <= 1e-5 * scale


def test_packed_bits_do_not_depend_on_the_number_of_threads() -> None:
    offsets = torch.tensor([0, 300, 300, 301, 900, 1200])
    x, grad_y = torch.randn(1, 1200, 140), torch.randn(1, 1200, 140)
    weight, before = torch.randn(140, 4), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            options = {"silu": True, "reverse": False, "offsets": offsets}
            forward = native.causal_conv1d_forward(x, weight, None, None, **options)
            backward = native.causal_conv1d_backward(grad_y, None, x, weight, None, None, **options)
            results.append([*forward, *backward[:2]])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
