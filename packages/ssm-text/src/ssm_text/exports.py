"""The graphs of a language model, for programs without this package.

    prefill: ids (batch, length) -> logits (batch, V) after the last one, new_state.*
    step: token (batch,), state.* -> logits (batch, V), new_state.*

A text begins with `prefill`; `step` then takes each chosen token and the state of the call before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_core.export import Graph
from ssm_core.specs import DataInfo, ExportSpec
from ssm_text.causal_lm import CausalLM, State
from ssm_text.state_tree import leaves, rebuilt


class Prefill(nn.Module):
    """ids (b, l), l >= 1 -> the logits (b, V) after the last, and the tensors of the state."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.model(ids, return_state=True, last_only=True)
        return logits, *leaves(state)


class Step(nn.Module):
    """A token (b,) and the tensors of a state -> logits (b, V) and the tensors of the next one."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model
        self._like: State = model.initial_state(1)

    def forward(self, token: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.model.step(token, rebuilt(self._like, state))
        # what a step leaves as it was is copied: a tensor of an ONNX graph has one name
        before = {id(part) for part in state}
        return logits, *(x.clone() if id(x) in before else x for x in leaves(after))


def graphs(model: nn.Module, info: DataInfo | None = None) -> Sequence[Graph] | None:
    """The graphs of a language model; None for other models."""
    if not isinstance(model, CausalLM):
        return None
    names = list(_names(model.initial_state(1)))
    before, after = [f"state.{name}" for name in names], [f"new_state.{name}" for name in names]

    def ids(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        return (_random_ids(model, sizes["batch"], sizes["length"]),)

    def token_and_state(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        state = _state_after(model, sizes["batch"], sizes.get("past", 5))
        return _random_ids(model, sizes["batch"], 1).squeeze(1), *state

    # the keys and values of attention grow with every token, other states have one size
    shorter, longer = (_state_after(model, 2, past) for past in (3, 4))
    axes = {
        name: {0: "batch"} | {i: "past" for i in range(1, a.dim()) if a.shape[i] != b.shape[i]}
        for name, a, b in zip(before, shorter, longer, strict=True)
    }
    outputs = ["logits", *after]
    limits = {} if model.context is None else {"length": model.context, "past": model.context - 1}
    text, token = {"ids": {0: "batch", 1: "length"}}, {"token": {0: "batch"}}
    return [
        Graph("prefill", Prefill(model), text, outputs, ids, limits),
        Graph("step", Step(model), {**token, **axes}, outputs, token_and_state, limits),
    ]


def load(source: str, checkpoint: str | None) -> nn.Module | None:
    """A published model: its folder, or its id on the Hugging Face hub; None: something else."""
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file() and (folder.exists() or source.count("/") != 1):
        return None
    if checkpoint is not None:
        raise ConfigError(
            f"--checkpoint is for models without weights of their own, but {source} has some; "
            "leave it out"
        )
    from ssm_text.mamba_lm import MambaLM

    return MambaLM.from_pretrained(source)


EXPORT = ExportSpec(
    name="language models",
    summary="the graphs prefill and step; a run, or folder or Hugging Face id of a published Mamba",
    load=load,
    graphs=graphs,
)


def _names(state: State, name: str = "") -> Iterator[str]:
    """A name for each tensor of a state, in order: "0.conv", "0.ssm", "1.conv" ..."""
    if isinstance(state, Tensor):
        yield name
        return
    parts = getattr(state, "_fields", None) or [str(i) for i in range(len(state))]
    for part, own in zip(state, parts, strict=True):
        yield from _names(part, f"{name}.{own}" if name else own)


def _random_ids(model: CausalLM, batch: int, length: int) -> Tensor:
    device = next(model.parameters()).device
    return torch.randint(model.vocab_size, (batch, length), device=device)


@torch.no_grad()
def _state_after(model: CausalLM, batch: int, past: int) -> tuple[Tensor, ...]:
    _, state = model(_random_ids(model, batch, past), return_state=True)
    return tuple(leaves(state))
