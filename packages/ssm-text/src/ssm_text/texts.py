"""How far a model has read a batch of texts: what generation starts from and goes on from.

Prompts are read by the parallel scan, in chunks so that their length does not matter, then token by
token; only the model's state is kept.

A model with a `context` takes no more than that many tokens into one state. When it is full, the
last context // 2 tokens (at least one) are read anew, together with the token that did not fit, as
if the text began there. Where that happens depends on the text's length alone, so that a text that
is read at once and one that is read token by token meet in the same state. A text of n tokens is
read from `window_start(n, context)` on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_text.causal_lm import CausalLM, State
from ssm_text.decode_step import DecodeStep, decode_step
from ssm_text.errors import TokenError
from ssm_text.sampling import Sampling, check_logits, draw, generators

PREFILL_TOKENS = 2048  # of all texts of a batch together: what one chunk may cost in memory
TAIL = 8  # tokens kept at least: more than make up one character


class Texts:
    """A batch of texts and the state of a model after them. Use it within `evaluating(model)`.

    Args:
        model: any language model; all tensors are on its device.
        batch: how many texts.
        sampling: gives the texts their random generators.
        vocab_size: how many ids may be chosen; None: all of the model's. A model may have more
            rows than its tokenizer has tokens.

    Attributes:
        state: after all tokens but `pending`; None before the first.
        logits: (b, V) after the last token that the state knows.
        pending: (b,) ids that were chosen and not yet read, or None.
        lengths: tokens of each text, pending ones included.
        recent: (b, context or `TAIL`) the last tokens of each text that were read, on the right.
        seen: (b, V) bool, which tokens each text has.
        generators: one for each text.

    Memory: one state, V bytes per text, and `context` ids per text. Cost: the model on what is
    read, one step per token pushed; with a context, once in about context / 2 tokens so many anew.
    """

    def __init__(
        self,
        model: CausalLM,
        batch: int = 1,
        sampling: Sampling | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.model = model
        self.vocab_size = model.vocab_size if vocab_size is None else vocab_size
        if not 1 <= self.vocab_size <= model.vocab_size:
            raise ConfigError(
                f"vocab_size is {vocab_size}, expected 1 to the model's {model.vocab_size}"
            )
        self.device = next(model.parameters()).device
        self.state: State | None = None
        self.logits: Tensor | None = None
        self.pending: Tensor | None = None
        self.lengths = [0] * batch
        self.generators = generators(sampling or Sampling(), batch)
        kept = max(model.context or 0, TAIL)
        self.recent = torch.zeros(batch, kept, dtype=torch.int64, device=self.device)
        self.seen = torch.zeros(batch, self.vocab_size, dtype=torch.bool, device=self.device)
        self._finite = torch.ones(batch, dtype=torch.bool, device=self.device)
        self._step: DecodeStep = decode_step(model)

    @torch.inference_mode()
    def read(self, prompts: Sequence[Tensor]) -> None:
        """Append `prompts`, one tensor of ids (l,) for each text, of any lengths.

        Raises:
            TokenError: a text without a token, or ids of another type or out of range.
        """
        self._check(prompts)
        self.settle()
        prompts = [ids.to(self.device) for ids in prompts]
        for seen, ids in zip(self.seen, prompts, strict=True):
            seen[ids] = True
        counts = [len(ids) for ids in prompts]
        before, self.lengths = (
            self.lengths,
            [length + count for length, count in zip(self.lengths, counts, strict=True)],
        )
        if not any(counts):
            return
        anew = self._windows_move(before) or (self.model.context and len(set(counts)) > 1)
        self.recent = torch.stack(
            [
                torch.cat([old, ids])[len(ids) :]
                for old, ids in zip(self.recent, prompts, strict=True)
            ]
        )
        if anew:
            self._read_windows()
        else:
            self._feed(prompts)

    @torch.inference_mode()
    def draw(self, sampling: Sampling, active: Tensor | None = None) -> Tensor:
        """Ids (b,) for the next tokens; `push` appends them or others.

        Args:
            active: (b,) bool, the texts whose logits `check` looks at; None: all.
        """
        self.settle()
        if self.logits is None:
            raise TokenError("there is nothing to go on from: read a prompt of a token or more")
        logits = self.logits[:, : self.vocab_size]
        finite = torch.isfinite(logits).all(1)
        self._finite &= finite if active is None else finite | ~active
        # with a penalty of 1 it would change nothing
        seen = self.seen if sampling.repetition_penalty != 1 else None
        if self.device.type not in ("cpu", "cuda"):  # others, mps say, have no float64
            logits, seen = logits.cpu(), None if seen is None else seen.cpu()
        return draw(logits, sampling, self.generators, seen).to(self.device)

    @torch.inference_mode()
    def push(self, ids: Tensor) -> None:
        """Append one token to each text, ids (b,); the model reads them when it has to."""
        self.settle()
        self.pending = ids
        self.seen.scatter_(1, ids.unsqueeze(1), True)
        self.lengths = [length + 1 for length in self.lengths]

    def tail(self) -> list[int]:
        """The last tokens of the only text, at most `TAIL`."""
        self.settle()
        kept = min(TAIL, *self.lengths)
        return self.recent[0, self.recent.shape[1] - kept :].tolist()

    def check(self) -> None:
        """Wait for the device and refuse logits that were no numbers.

        Raises:
            GenerationError: logits that ids were drawn from were NaN or infinite.
        """
        check_logits(self._finite)

    def settle(self) -> None:
        """Let the model read the pending tokens, so that state and logits are up to date."""
        if self.pending is not None:
            ids, self.pending = self.pending, None
            self._read_one(ids)

    @torch.inference_mode()
    def _read_one(self, ids: Tensor) -> None:
        self.recent = torch.cat([self.recent[:, 1:], ids.unsqueeze(1)], dim=1)
        if self._windows_move([length - 1 for length in self.lengths]):
            self._read_windows()
            return
        self.logits, self.state = self._step(ids, self.state)

    def _check(self, prompts: Sequence[Tensor]) -> None:
        if len(prompts) != len(self.lengths):
            raise TokenError(f"{len(prompts)} prompts for a batch of {len(self.lengths)} texts")
        for i, (ids, length) in enumerate(zip(prompts, self.lengths, strict=True)):
            if not isinstance(ids, Tensor):
                raise TokenError(f"text {i} is a {type(ids).__name__}, expected a tensor of ids")
            if ids.dim() != 1 or ids.dtype != torch.int64:
                raise TokenError(
                    f"text {i}: ids have shape {tuple(ids.shape)} and type {ids.dtype}, "
                    "expected (l,) and torch.int64"
                )
            if not len(ids) and not length:
                raise TokenError(
                    f"text {i} has no tokens: give it one or more, e.g. the one that begins a text"
                )
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
                raise TokenError(
                    f"text {i}: ids from {int(ids.min())} to {int(ids.max())}, "
                    f"expected 0 to {self.vocab_size - 1}"
                )

    def _windows_move(self, before: Sequence[int]) -> bool:
        """Whether the state of any text cannot take what came after `before` tokens."""
        context = self.model.context
        return context is not None and any(
            window_start(now, context) != window_start(then, context)
            for now, then in zip(self.lengths, before, strict=True)
        )

    def _read_windows(self) -> None:
        """Read every text anew from the start of its window."""
        assert self.model.context
        self.state = None
        starts = [window_start(length, self.model.context) for length in self.lengths]
        kept = [length - start for length, start in zip(self.lengths, starts, strict=True)]
        self._feed([ids[len(ids) - n :] for ids, n in zip(self.recent, kept, strict=True)])

    def _feed(self, prompts: Sequence[Tensor]) -> None:
        """Continue the state with ids of any lengths; texts without any keep their logits."""
        longest = max(len(ids) for ids in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64, device=self.device)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        # padding stands on the left: the last chunk then has the last token of every text
        for i, own in enumerate(prompts):
            ids[i, longest - len(own) :] = own
            mask[i, longest - len(own) :] = True
        ragged = any(len(own) != longest for own in prompts)
        old = self.logits
        state = self.model.initial_state(len(prompts)) if self.state is None else self.state
        width = max(1, PREFILL_TOKENS // len(prompts))
        for chunk, steps in zip(ids.split(width, 1), mask.split(width, 1), strict=True):
            self.logits, state = self.model(
                chunk, state, True, mask=steps if ragged else None, last_only=True
            )
        if old is not None and not all(len(own) for own in prompts):
            assert self.logits is not None
            self.logits = torch.where(mask[:, -1:], self.logits, old)
        self.state = state


def window_start(length: int, context: int) -> int:
    """Where the part of a text of `length` tokens begins that a state of `context` tokens holds."""
    jump = context + 1 - max(1, context // 2)
    return max(0, -(-(length - context) // jump)) * jump


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and on again afterwards where they were on."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
