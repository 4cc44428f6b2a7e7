"""Token ids from any language model: batches of prompts of any lengths, in constant memory.

`CausalLM.generate` is this file's front door; `stream` gives tokens as they are chosen, and goes on
from texts that were read or generated before.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import torch
from torch import Tensor

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text.causal_lm import CausalLM
from ssm_text.errors import TokenError
from ssm_text.sampling import Sampling
from ssm_text.texts import Texts, evaluating


class GenerateOptions(TypedDict, total=False):
    """Further options of `CausalLM.generate`; see `Sampling` and `Ending`."""

    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop_ids: Sequence[int]
    pad_id: int


@dataclass(frozen=True)
class Ending:
    """When a text ends.

    Args:
        max_new_tokens: the most tokens a text gets.
        stop_ids: a text ends after any of these; it stays part of the text. With them every token
            waits for the device.
        pad_id: what stands behind a text that ended before others of its batch; None: the first of
            `stop_ids`.
    """

    max_new_tokens: int = 20
    stop_ids: Sequence[int] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}, expected 0 or more")

    @property
    def pad(self) -> int:
        """What stands behind a text that ended; without `stop_ids` none does before the others."""
        return next(iter(self.stop_ids), 0) if self.pad_id is None else self.pad_id

    def check(self, vocab_size: int) -> None:
        """Check the ids.

        Raises:
            TokenError: an id that the model does not have.
        """
        named = [("stop_ids", id) for id in self.stop_ids]
        named += [] if self.pad_id is None else [("pad_id", self.pad_id)]
        for name, id in named:
            if not 0 <= id < vocab_size:
                raise TokenError(f"{name}: {id} is no id, expected 0 to {vocab_size - 1}")


def stream(
    texts: Texts, sampling: Sampling, ending: Ending | None = None
) -> Generator[Tensor, None, None]:
    """Yield ids (b,) on the model's device, the next token of every text, as soon as chosen.

    `texts` is always up to date: it may be saved, or read more, whenever the iterator rests or is
    closed. A text that has ended gets `pad_id`, and what the model says of it is not looked at;
    nothing is yielded after all have ended.

    Raises:
        TokenError: the texts have no tokens to go on from, or an id of `ending` is out of range.
        GenerationError: logits are not finite; on a GPU that is looked at when the iterator ends,
            so that the device is not waited for, or with `texts.check()`.

    Cost: one step of the model per token, and a draw; see `sampling.probabilities`.
    """
    ending = ending or Ending()
    ending.check(texts.vocab_size)
    return _stream(texts, sampling, ending)


def _stream(texts: Texts, sampling: Sampling, ending: Ending) -> Generator[Tensor, None, None]:
    active = torch.ones(len(texts.lengths), dtype=torch.bool, device=texts.device)
    stops = torch.tensor(list(ending.stop_ids), dtype=torch.int64, device=texts.device)
    waiting = texts.device.type == "cpu" or bool(len(stops))
    with evaluating(texts.model):
        for _ in range(ending.max_new_tokens):
            ids = texts.draw(sampling, active if len(stops) else None)
            if waiting:
                texts.check()
            if len(stops):
                ids = torch.where(active, ids, ending.pad)
            texts.push(ids)
            yield ids
            if len(stops):
                active = active & ~torch.isin(ids, stops)
                if not bool(active.any()):
                    return
        texts.check()


def generate_ids(
    model: CausalLM, prompts: Sequence[Tensor], sampling: Sampling, ending: Ending
) -> list[Tensor]:
    """New ids of each text, (n,) each, without the prompt; see `CausalLM.generate`."""
    ending.check(model.vocab_size)
    texts = Texts(model, len(prompts), sampling)
    with evaluating(model):
        texts.read(prompts)
    chosen = list(stream(texts, sampling, ending))
    if not chosen:
        return [ids.new_zeros(0, device=texts.device) for ids in prompts]
    return [_ended(ids, ending.stop_ids) for ids in torch.stack(chosen, dim=1)]


def generate(
    model: CausalLM,
    prompts: Tensor | Sequence[Tensor],
    max_new_tokens: int,
    temperature: float,
    options: Mapping[str, Any],
) -> Tensor | list[Tensor]:
    """Do what `CausalLM.generate` says."""
    sampling, ending = _parsed(max_new_tokens, temperature, options)
    if isinstance(prompts, Tensor) and prompts.dim() != 2:
        raise TokenError(
            f"generate: ids have shape {tuple(prompts.shape)}, expected (b, l), or a list of (l,)"
        )
    rows = list(prompts)
    new = generate_ids(model, rows, sampling, ending) if rows else []
    if not isinstance(prompts, Tensor):
        return [torch.cat([ids.to(own.device), own]) for ids, own in zip(rows, new, strict=True)]
    grown = prompts.new_full((len(rows), max((len(own) for own in new), default=0)), ending.pad)
    for row, own in zip(grown, new, strict=True):
        row[: len(own)] = own
    return torch.cat([prompts, grown], dim=1)


def _parsed(
    max_new_tokens: int, temperature: float, options: Mapping[str, Any]
) -> tuple[Sampling, Ending]:
    known = GenerateOptions.__annotations__
    for name in options:
        if name not in known:
            raise UnknownNameError.of(
                "option of generate", name, ["max_new_tokens", "temperature", *known]
            )
    own = {field.name for field in fields(Sampling)}
    sampling = Sampling(temperature=temperature, **{k: v for k, v in options.items() if k in own})
    return sampling, Ending(max_new_tokens, **{k: v for k, v in options.items() if k not in own})


def _ended(ids: Tensor, stop_ids: Sequence[int]) -> Tensor:
    """Ids (n,) up to and with the first of `stop_ids`."""
    if not stop_ids:
        return ids
    (places,) = torch.isin(ids, ids.new_tensor(list(stop_ids))).nonzero(as_tuple=True)
    return ids[: int(places[0]) + 1] if len(places) else ids
