"""`mamba_ssm.utils.generation`: the decoding loop, on our rules of choosing tokens."""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ssm_core.compat.cache import InferenceParams
from ssm_text.sampling import Sampling, penalised, probabilities


class Streamer(Protocol):
    """What is told of tokens as they are chosen, such as a `TextStreamer` of transformers."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


class DecodeOutput(NamedTuple):
    """What `decode` returns."""

    sequences: Tensor
    """(b, l + new)"""
    scores: tuple[Tensor, ...] | None
    """(b, V) logits before each new token; None: they were not asked for."""


def sampling_of(
    top_k: int, top_p: float, min_p: float, temperature: float, repetition_penalty: float = 1.0
) -> Sampling:
    """Our rules for the original's arguments: 0 switches `top_p` off, `top_k` 1 is greedy."""
    return Sampling(
        temperature=0.0 if top_k == 1 else temperature,
        top_k=top_k,
        top_p=top_p if top_p > 0 else 1.0,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )


# The arguments and their order are the original's, here and below.
def sample(
    logits: Tensor,
    top_k: int = 1,
    top_p: float = 0.0,
    min_p: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Ids (b,) chosen from logits (b, V) with the global random generator of PyTorch.

    Filters act as in `ssm_text.sampling`; the original uses `min_p` only where `top_k` is 0.

    Raises:
        ConfigError: an option out of range.
    """
    return _drawn(logits, sampling_of(top_k, top_p, min_p, temperature), None)


@torch.inference_mode()
def decode(
    input_ids: Tensor,
    model: Any,
    max_length: int,
    top_k: int = 1,
    top_p: float = 0.0,
    min_p: float = 0.0,
    temperature: float = 1.0,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    teacher_outputs: Tensor | None = None,
    vocab_size: int | None = None,
    cg: bool = False,
    enable_timing: bool = False,
    output_scores: bool = False,
    streamer: Streamer | None = None,
) -> DecodeOutput:
    """Continue the texts input_ids (b, l) up to `max_length` tokens, at least by one.

    Args:
        model: is called with ids, position_ids, inference_params and num_last_tokens=1, and returns
            an object with `.logits` (b, 1, V).
        max_length: of the texts, prompts included.
        top_k, top_p, min_p, temperature: see `sample`; top_k 1 takes the likeliest.
        repetition_penalty: see `ssm_text.sampling.Sampling`.
        eos_token_id: ends all texts when each has just got it.
        teacher_outputs: (b, n) tokens that stand in for the chosen ones, up to there.
        vocab_size: choose among so many tokens, without the padding behind them.
        cg: the original records a CUDA graph; here every step is run, with the same result.
        enable_timing: print how long it took.
        output_scores: keep the logits.
        streamer: is given the prompts and each new token, on the CPU.
    Raises:
        ConfigError: an option out of range.

    Cost: the model on the prompts once, then one step per token.
    """
    started = time.perf_counter()
    sampling = sampling_of(top_k, top_p, min_p, temperature, repetition_penalty)
    params = InferenceParams(max_seqlen=max_length, max_batch_size=len(input_ids))
    ids, sequences, scores = input_ids, [input_ids], []
    seen: Tensor | None = None
    if streamer is not None:
        streamer.put(ids.cpu())
    while True:
        logits = _next_logits(model, ids, params)[..., :vocab_size]
        if output_scores:
            scores.append(logits)
        params.seqlen_offset += ids.shape[1]
        if repetition_penalty != 1.0:
            if seen is None:
                seen = torch.zeros_like(logits, dtype=torch.bool)
            seen.scatter_(1, ids, True)
        given = _given(teacher_outputs, params.seqlen_offset)
        ids = _drawn(logits, sampling, seen).unsqueeze(1) if given is None else given
        sequences.append(ids)
        if streamer is not None:
            streamer.put(ids.cpu())
        if params.seqlen_offset >= max_length - 1:
            break
        if eos_token_id is not None and bool((ids == eos_token_id).all()):
            break
    if streamer is not None:
        streamer.end()
    if enable_timing:
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        print(f"Prompt and decoding: {(time.perf_counter() - started) * 1e3:.0f} ms")
    return DecodeOutput(torch.cat(sequences, dim=1), tuple(scores) if output_scores else None)


class GenerationMixin:
    """Gives a language model `generate`."""

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Return the caches of all layers by their number."""
        raise NotImplementedError(f"{type(self).__name__} does not implement it")

    def generate(
        self,
        input_ids: Tensor,
        max_length: int,
        top_k: int = 1,
        top_p: float = 0.0,
        min_p: float = 0.0,
        temperature: float = 1.0,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        **kwargs: Any,
    ) -> Tensor | DecodeOutput:
        """Continue the texts input_ids (b, l): (b, l + new), prompts included; see `decode`.

        Args:
            return_dict_in_generate: return a `DecodeOutput`.
            kwargs: further arguments of `decode`.
        """
        output = decode(
            *(input_ids, self, max_length, top_k, top_p, min_p, temperature),
            output_scores=output_scores and return_dict_in_generate,
            **kwargs,
        )
        return output if return_dict_in_generate else output.sequences


def _next_logits(model: Any, ids: Tensor, params: InferenceParams) -> Tensor:
    """Logits (b, V) after ids (b, n)."""
    positions = None
    if params.seqlen_offset > 0:
        positions = torch.full_like(ids, params.seqlen_offset)
    output = model(ids, position_ids=positions, inference_params=params, num_last_tokens=1)
    logits: Tensor = output.logits.squeeze(1)
    return logits


def _given(teacher_outputs: Tensor | None, place: int) -> Tensor | None:
    if teacher_outputs is None or teacher_outputs.shape[1] <= place:
        return None
    return teacher_outputs[:, place : place + 1]


def _drawn(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    if sampling.temperature == 0:
        return penalised(logits, sampling, seen).argmax(dim=-1)
    return torch.multinomial(probabilities(logits, sampling, seen), 1).squeeze(1)
