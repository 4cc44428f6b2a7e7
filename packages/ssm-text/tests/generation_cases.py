"""What the tests of generation share."""

from __future__ import annotations

import torch

MIXERS = {
    "mamba": {},
    "mamba2": {"headdim": 4},
    "s4": {"d_state": 8, "dt_min": 0.01},
    "s4d": {},
    "s5": {},
    "rnn": {},
    "attention": {},
}


def prompts_of(*lengths: int, vocab_size: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocab_size, (n,), generator=generator) for n in lengths]


def expected_start(length: int, context: int | None) -> int:
    """Token by token: a full state begins anew with the last context // 2 tokens."""
    start = 0
    for seen in range(1, length + 1):
        if context is not None and seen - start > context:
            start = seen - max(1, context // 2)
    return start
