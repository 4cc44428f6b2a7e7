"""What every language model here can do: logits of whole texts, of pieces, or one token at a time.

    logits = model(ids)                                       # (b, l) -> (b, l, V)
    logits, state = model(ids, state=state, return_state=True)  # continue; None starts anew
    logits_t, state = model.step(ids_t, state)                # (b,) -> (b, V)
    state = model.initial_state(batch)                        # before the first token

All three agree. Texts of different lengths share a batch through `mask`: padding, wherever it is,
is skipped and reaches no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from ssm_text.errors import TokenError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssm_text.generation import GenerateOptions

State = Any
"""NamedTuples of tensors inside tuples, the batch as first axis of each; a model has its own."""


class CausalLM(nn.Module):
    """Next-token logits: ids (b, l) int64 -> (b, l, V), at step t of the token at t + 1.

    A subclass sets `vocab_size` and implements `hidden`, `initial_state` and `logits`.

    Attributes:
        vocab_size: V; ids are 0 to V - 1.
        context: the most tokens one state can take in; None: any number.
    """

    vocab_size: int
    context: int | None = None

    def forward(
        self,
        ids: Tensor,
        state: State | None = None,
        return_state: bool = False,
        *,
        mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor | tuple[Tensor, State]:
        """Logits (b, l, V) of ids (b, l), any l >= 0.

        Args:
            state: where to continue from; None means the beginning of a text.
            return_state: also return the state after the last token.
            mask: (b, l) bool, True on tokens, False on padding; None: all are tokens. Logits on
                padding mean nothing.
            last_only: only the logits (b, V) after each text's last token, without the cost of the
                others; every text must have one.
        Raises:
            TokenError: ids of a wrong shape or type, or (checked on the CPU) out of range.
        """
        self.check_ids(ids, "(b, l)")
        hidden, state = self.hidden(ids, state, return_state, mask)
        if last_only:
            hidden = last_steps(hidden, mask)
        logits = self.logits(hidden)
        return (logits, state) if return_state else logits

    def step(self, ids_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (b, V) after one more token ids_t (b,), and the next state."""
        self.check_ids(ids_t, "(b,)")
        hidden, state = self.hidden(ids_t.unsqueeze(1), state, True, None)
        return self.logits(hidden.squeeze(1)), state

    @overload
    def generate(
        self,
        ids: Tensor,
        max_new_tokens: int = ...,
        temperature: float = ...,
        **options: Unpack[GenerateOptions],
    ) -> Tensor: ...

    @overload
    def generate(
        self,
        ids: Sequence[Tensor],
        max_new_tokens: int = ...,
        temperature: float = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[Tensor]: ...

    def generate(
        self,
        ids: Tensor | Sequence[Tensor],
        max_new_tokens: int = 20,
        temperature: float = 0.0,
        **options: Unpack[GenerateOptions],
    ) -> Tensor | list[Tensor]:
        """Continue texts: ids (b, l) -> (b, l + new), or a list of (l,) of any lengths -> a list.

        The model is used without dropout whatever its mode. Text i of a batch becomes what it
        becomes alone with `seed + i`, whatever stands beside it. For tokens one by one see
        `ssm_text.generation.stream`, for text `ssm_text.generate`.

        Args:
            ids: the prompts, one token or more each, on any device.
            max_new_tokens: how many tokens to add, fewer where a text ends before.
            temperature: 0 always takes the likeliest token; otherwise it divides the logits.
            options: `top_k`, `top_p`, `min_p`, `repetition_penalty` and `seed` of `Sampling`,
                `stop_ids` and `pad_id` of `ssm_text.generation.Ending`.
        Returns:
            The texts, prompts included. Of a list each ends with its stop id or its last token; in
            a tensor `pad_id` follows up to the longest.
        Raises:
            TokenError: a prompt without tokens, ids of a wrong shape or type, or out of range.
            ConfigError: an option out of range, or (`UnknownNameError`) one that there is not.
            GenerationError: the logits are not finite numbers.

        Cost: the model on the prompts once, then one step per token; memory for one state.
        """
        from ssm_text.generation import generate

        return generate(self, ids, max_new_tokens, temperature, options)

    def hidden(
        self, ids: Tensor, state: State | None, return_state: bool, mask: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """What the head reads, (b, l, d), and the state, for checked arguments of `forward`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement hidden")

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (.., V) of `hidden` (.., d)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement logits")

    def initial_state(self, batch: int) -> State:
        """The state at the beginning of `batch` texts."""
        raise NotImplementedError(f"{type(self).__name__} does not implement initial_state")

    def check_ids(self, ids: Tensor, layout: str) -> None:
        """Check ids that shall be `layout`, "(b, l)" or "(b,)".

        Raises:
            TokenError: they are of another shape or type, or (checked on the CPU) out of range.
        """
        name = type(self).__name__
        if ids.dim() != (2 if layout == "(b, l)" else 1) or ids.dtype != torch.int64:
            raise TokenError(
                f"{name}: ids have shape {tuple(ids.shape)} and type {ids.dtype}, "
                f"expected {layout} and torch.int64"
            )
        # on an accelerator the check would wait for the device
        if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
            least, most = (int(bound) for bound in torch.aminmax(ids))
            if least < 0 or most >= self.vocab_size:
                raise TokenError(
                    f"{name}: ids from {least} to {most}, expected 0 to {self.vocab_size - 1}"
                )


def last_steps(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The step (b, d) of `hidden` (b, l, d) that is the last with True in `mask` (b, l)."""
    if mask is None:
        return hidden[:, -1]
    steps = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, steps, 0).amax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]
