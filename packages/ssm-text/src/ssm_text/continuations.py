"""How likely a language model holds given endings of texts, e.g. the answers to a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_text.causal_lm import CausalLM
from ssm_text.data.windows import IGNORED
from ssm_text.errors import TokenError
from ssm_text.sampling import check_logits
from ssm_text.scoring import TOKENS, each_target
from ssm_text.texts import evaluating


class Continuation(NamedTuple):
    """What a model makes of a given ending of a text."""

    nats: float
    """Minus the logarithm of its probability."""
    greedy: bool
    """Whether each of its tokens is the likeliest where it stands."""


@torch.inference_mode()
def score_continuations(
    model: CausalLM, requests: Sequence[tuple[Tensor, Tensor]]
) -> list[Continuation]:
    """Score endings, each after its own beginning; requests of any lengths share batches.

    Args:
        requests: pairs of ids (l,) int64 on the CPU: what comes before, one token or more, and what
            is scored. Of what comes before, a model with a context reads the end that fits.
    Raises:
        TokenError: nothing before, ids of a wrong type or out of range, or an ending that does not
            fit into the model's context.
        GenerationError: the model's logits are not finite numbers.

    Cost: the model on all requests once; memory for `TOKENS` tokens, or for the longest request.
    """
    texts = [_checked_request(model, *request) for request in requests]
    found = [Continuation(0.0, True)] * len(requests)
    order = [i for i in range(len(requests)) if len(requests[i][1])]
    order.sort(key=lambda i: len(texts[i]), reverse=True)
    with evaluating(model):
        while order:
            count = max(1, TOKENS // len(texts[order[0]]))
            batch, order = order[:count], order[count:]
            ends = [len(requests[i][1]) for i in batch]
            results = _score_batch(model, [texts[i] for i in batch], ends)
            for i, result in zip(batch, results, strict=True):
                found[i] = result
    return found


def _score_batch(
    model: CausalLM, texts: Sequence[Tensor], ends: Sequence[int]
) -> Iterator[Continuation]:
    """Score the last `ends[i]` tokens of each text; the longest text is the first."""
    device = next(model.parameters()).device
    ids = torch.zeros(len(texts), len(texts[0]) - 1, dtype=torch.int64)
    targets = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
        length = len(text) - 1
        ids[row, :length], mask[row, :length] = text[:-1], True
        targets[row, length - end : length] = text[len(text) - end :]
    ragged = not bool(mask.all())  # packing needs to wait for the device
    hidden, _ = model.hidden(ids.to(device), None, False, mask.to(device) if ragged else None)
    parts = list(each_target(model, hidden, targets.to(device)))
    nats = torch.cat([own for own, _ in parts]).split(list(ends))
    hits = torch.cat([own for _, own in parts]).split(list(ends))
    sums = torch.stack([own.sum() for own in nats])
    check_logits(torch.isfinite(sums))
    greedy = torch.stack([own.all() for own in hits])
    return map(Continuation, sums.tolist(), greedy.tolist())


def _checked_request(model: CausalLM, before: Tensor, ending: Tensor) -> Tensor:
    """The tokens (l,) of a request that the model reads, and the last, which it predicts."""
    if not len(before):
        raise TokenError(
            "nothing stands before the text to score, expected a token or more, e.g. the end of "
            "another text"
        )
    text = torch.cat([before, ending])
    model.check_ids(text.unsqueeze(0), "(b, l)")
    if model.context is not None:
        if len(ending) > model.context:
            raise TokenError(
                f"{len(ending)} tokens are to be scored after one another, expected at most the "
                f"model's context, {model.context}; score them as a text of their own"
            )
        text = text[-model.context - 1 :]
    return text
