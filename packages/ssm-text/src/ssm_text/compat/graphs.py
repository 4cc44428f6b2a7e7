"""`mamba_ssm.utils.generation`: what decoding loops of other projects take from there.

Loops that were copied from the original ask for a recorded CUDA graph of a step and call that; here
a step is run as it is, on every device, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssm_core.compat.cache import InferenceParams
from ssm_kernels.errors import ShapeError

Run = Callable[[Tensor, Tensor | None, int], Tensor]
"""ids (b, n), position_ids (b, n) and the steps read so far -> logits (b, n, V)."""


@dataclass
class DecodingCGCache:
    """What `update_graph_cache` keeps from text to text."""

    max_batch_size: int = 0
    max_seqlen: int = 0
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    callables: dict[tuple[int, int], Run] = field(default_factory=dict)
    mempool: object = None
    inference_params: InferenceParams | None = None
    run: Run | None = None


# The arguments and their order are the original's, here and below.
def update_graph_cache(
    model: Any,
    cache: DecodingCGCache | None,
    batch_size: int,
    seqlen_og: int,
    max_seqlen: int,
    decoding_seqlens: Sequence[int] = (1,),
    dtype: torch.dtype | None = None,
    n_warmups: int = 2,
) -> DecodingCGCache:
    """Return `cache` with room for `batch_size` texts of `max_seqlen` tokens; None: a new one.

    Args:
        model: has `allocate_inference_cache(batch_size, max_seqlen, dtype)` and parameters.
        seqlen_og: length of the prompts.
        decoding_seqlens: lengths of the steps that `run` will be called with.
        dtype: of the layers' caches; None: that of the parameters.
        n_warmups: for recording, which there is not.
    """
    cache = DecodingCGCache() if cache is None else cache
    example = next(iter(model.parameters()))
    wanted = (example.device, example.dtype if dtype is None else dtype)
    is_larger = batch_size > cache.max_batch_size or max_seqlen > cache.max_seqlen
    if cache.inference_params is None or wanted != (cache.device, cache.dtype) or is_larger:
        cache.callables = {}
        (cache.device, cache.dtype) = wanted
        cache.max_batch_size, cache.max_seqlen = batch_size, max_seqlen
        cache.inference_params = InferenceParams(
            max_seqlen=max_seqlen,
            max_batch_size=batch_size,
            key_value_memory_dict=model.allocate_inference_cache(batch_size, max_seqlen, wanted[1]),
            lengths_per_sample=torch.full(
                (batch_size,), seqlen_og, dtype=torch.int32, device=wanted[0]
            ),
        )
    run = capture_graph(model, cache.inference_params, batch_size, max_seqlen)
    cache.callables.update({(batch_size, length): run for length in decoding_seqlens})
    cache.run = run
    cache.inference_params.seqlen_offset = 0
    return cache


def capture_graph(
    model: Any,
    inference_params: InferenceParams,
    batch_size: int,
    max_seqlen: int,
    decoding_seqlen: int = 1,
    mempool: object = None,
    n_warmups: int = 2,
) -> Run:
    """Return what runs `model` for one step with `inference_params`; nothing is recorded.

    Args:
        batch_size, max_seqlen, decoding_seqlen, mempool, n_warmups: for recording.
    """

    @torch.inference_mode()
    def run(input_ids: Tensor, position_ids: Tensor | None, seqlen: int) -> Tensor:
        if inference_params.lengths_per_sample is not None:
            inference_params.lengths_per_sample[:] = seqlen
        before, inference_params.seqlen_offset = inference_params.seqlen_offset, seqlen
        try:
            output = model(
                input_ids,
                position_ids=position_ids,
                inference_params=inference_params,
                num_last_tokens=input_ids.shape[1],
            )
        finally:
            inference_params.seqlen_offset = before
        logits: Tensor = output.logits
        return logits

    return run


def modify_logits_for_min_p_filtering(logits: Tensor, min_p: float) -> None:
    """Set logits (b, V) below `min_p` to -inf in place, where it is between 0 and 1."""
    if 0.0 < min_p < 1.0:
        logits.masked_fill_(logits < min_p, -torch.inf)


def modify_logits_for_top_k_filtering(logits: Tensor, top_k: int) -> None:
    """Set logits (b, V) below the `top_k` highest to -inf in place."""
    least = logits.topk(top_k, dim=-1).values[..., -1:]
    logits.masked_fill_(logits < least, -torch.inf)


def modify_logits_for_top_p_filtering(logits: Tensor, top_p: float) -> None:
    """Set the logits (b, V) outside of a share `top_p` of the probability to -inf in place.

    The share is made of the likeliest tokens. Nothing is done for 0 or less, and for 1 or more.

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    if not 0.0 < top_p < 1.0:
        return
    values, order = logits.sort(dim=-1)
    rest = values.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
    logits.masked_fill_(torch.empty_like(rest).scatter_(-1, order, rest), -torch.inf)


def modify_logit_for_repetition_penalty(
    logits: Tensor, prev_output_tokens: Tensor, repetition_penalty: float = 1.0
) -> Tensor:
    """Divide positive logits (b, V) of tokens (b, n) by the penalty, multiply negative; in place.

    Source: Keskar et al. 2019, arXiv:1909.05858.
    """
    if repetition_penalty != 1.0:
        seen = logits.gather(1, prev_output_tokens)
        factor = torch.where(seen < 0, repetition_penalty, 1.0 / repetition_penalty)
        logits.scatter_(1, prev_output_tokens, seen * factor)
    return logits


def _update_kv_cache(kv: Tensor, inference_params: InferenceParams, layer_idx: int) -> Tensor:
    """Write keys and values kv (b, l, 2, h, p) behind those in the cache; return all of them.

    The cache is the first of the two things kept under `layer_idx`, (max_b, max_l, 2, h, p), as
    attention layers that were copied from the original allocate it. (`MHA` here has another.)

    Raises:
        KeyError: no cache under `layer_idx`.
        ShapeError: kv does not fit behind the steps read so far.
    """
    cache = inference_params.key_value_memory_dict[layer_idx][0]
    rows = slice(inference_params.batch_size_offset, None)
    room: Tensor = cache[rows][: kv.shape[0]]
    start, end = inference_params.seqlen_offset, inference_params.seqlen_offset + kv.shape[1]
    if len(room) < kv.shape[0] or end > room.shape[1]:
        raise ShapeError(
            f"_update_kv_cache: kv has shape {tuple(kv.shape)}, expected room for it after "
            f"{start} steps in a cache of shape {tuple(cache.shape)}; allocate a larger one"
        )
    room[:, start:end] = kv
    return room[:, :end]
