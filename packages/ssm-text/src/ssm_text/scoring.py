"""How likely a language model holds a given text to be: perplexity, bits per byte.

A model whose state takes in any number of tokens reads a text from its beginning to its end, so
that every token is predicted from all before it. Others, and those that are asked to, read windows
that overlap: a token is predicted from at least context - stride tokens before it (from all of them
at the beginning). Every token but the first, of which nothing is known, is predicted exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_text.causal_lm import CausalLM
from ssm_text.data.windows import IGNORED, TextWindows
from ssm_text.errors import TokenError
from ssm_text.sampling import check_logits
from ssm_text.texts import evaluating

#: tokens that a model reads at a time, of all texts of a batch together
TOKENS = 4096
#: logits that are in memory at a time
LOGITS = 1 << 24


@dataclass(frozen=True)
class Score:
    """What a model makes of a text.

    Attributes:
        nats: minus the logarithm of the probability of all predicted tokens together.
        tokens: how many were predicted.
    """

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(nats per token): among how many equally likely tokens the model hesitates."""
        mean = self.nats / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    def bits_per(self, count: int) -> float:
        """Bits per byte or character of which the predicted text has `count`."""
        return self.nats / math.log(2) / count


@torch.inference_mode()
def score(
    model: CausalLM,
    ids: Tensor,
    context: int | None = None,
    stride: int | None = None,
    advance: Callable[[int], object] = lambda tokens: None,
) -> Score:
    """Predict every token of a text but the first, exactly once.

    Args:
        ids: (l,) int64, l >= 2, on any device.
        context: read windows of so many tokens; None: the model's own context, and if it has none,
            the whole text with one state.
        stride: tokens between the starts of two windows; None: half of `context`.
        advance: called with the number of tokens that were read since the last call.
    Raises:
        TokenError: fewer than two ids, of a wrong type or (checked on the CPU) out of range.
        ConfigError: no such context or stride.
        GenerationError: the model's logits are not finite numbers.

    Cost: the model on the text once, or on context / stride times as many tokens in windows; memory
    for one state, `TOKENS` tokens and `LOGITS` logits, whatever the length.
    """
    if len(ids) < 2:
        raise TokenError(f"the text has {len(ids)} tokens, expected 2 or more")
    model.check_ids(ids.unsqueeze(0), "(b, l)")
    context = _checked_context(model, context, stride)
    nats = torch.zeros((), dtype=torch.float64)
    pieces = _whole(model, ids) if context is None else _windows(model, ids, context, stride)
    with evaluating(model):
        for hidden, targets, read in pieces:
            for own, _ in each_target(model, hidden, targets):
                nats += own.sum()
            check_logits(torch.isfinite(nats))
            advance(read)
    return Score(float(nats), len(ids) - 1)


def _whole(model: CausalLM, ids: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    """By chunks: what the head reads (1, l, d), targets (1, l), and how many tokens were read."""
    device = next(model.parameters()).device
    state = None
    for start in range(0, len(ids) - 1, TOKENS):
        chunk = ids[start : start + TOKENS + 1].to(device).unsqueeze(0)
        hidden, state = model.hidden(chunk[:, :-1], state, True, None)
        yield hidden, chunk[:, 1:], chunk.shape[1] - 1


def _windows(
    model: CausalLM, ids: Tensor, context: int, stride: int | None
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The same for windows (b, context); `read` counts the new tokens alone."""
    device = next(model.parameters()).device
    stride = max(1, context // 2) if stride is None else stride
    windows = TextWindows(ids.cpu(), context, stride, pad_last=True)
    size = max(1, TOKENS // context)
    for start in range(0, len(windows), size):
        indices = range(start, min(start + size, len(windows)))
        inputs, targets = windows.__getitems__(indices)
        # the first window has nothing before it, the others begin with what was predicted already
        targets[1 if start == 0 else 0 :, : context - stride] = IGNORED
        hidden, _ = model.hidden(inputs.to(device), None, False, None)
        yield hidden, targets.to(device), int((targets != IGNORED).sum())


def each_target(
    model: CausalLM, hidden: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Nats of every target but `IGNORED` ones, and whether it is the likeliest, slice by slice.

    Both (n,) on the CPU, float64 and bool.
    """
    counted = targets != IGNORED
    hidden, targets = hidden[counted], targets[counted]
    rows = max(1, LOGITS // model.vocab_size)
    for own, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = model.logits(own)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        nats = F.cross_entropy(logits, wanted, reduction="none")
        # sums of many in float64, which not every device has
        yield nats.cpu().double(), (logits.argmax(-1) == wanted).cpu()


def _checked_context(model: CausalLM, context: int | None, stride: int | None) -> int | None:
    if context is None:
        context = model.context
    elif context < 1 or context > (model.context or context):
        most = f" to {model.context}, the model's own" if model.context else " or more"
        raise ConfigError(f"context is {context}, expected 1{most}")
    if stride is not None and not 1 <= stride <= (context or 0):
        raise ConfigError(
            f"stride is {stride}, expected 1 to the context, "
            + (f"{context}" if context else "which is not given")
        )
    return context
