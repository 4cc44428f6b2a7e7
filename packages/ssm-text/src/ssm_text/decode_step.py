"""One token more for every text, as often as there are tokens: the loop that decoding spends its
time in.

On a GPU a step of a small model is hundreds of kernels that each take longer to start than to run.
There they are recorded once in a CUDA graph and then started all at once. A graph reads and writes
the same memory every time, so ids, state and logits live in buffers that a step overwrites.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ssm_text.causal_lm import CausalLM, State
from ssm_text.state_tree import leaves, rebuilt

DecodeStep: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]
"""(ids (b,), state) -> (logits (b, V), next state)"""
Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], object]]
"""Records what a function does on the device; what it returns does that again."""


def decode_step(model: CausalLM) -> DecodeStep:
    """The fastest way to do `model.step` on the model's device."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return model.step
    return BufferedStep(model, partial(cuda_graph, device))


class BufferedStep:
    """`model.step` on buffers that stay where they are, recorded by `capture` and then replayed.

    The first steps are ordinary ones: recording takes as long as several, which a short text would
    not win back, and they show the shapes. States whose shapes change from step to
    step (keys and values of attention) cannot be recorded: all their steps are ordinary ones. So
    they are, after a warning, where recording fails.

    What a recorded step returns are the buffers: the next one overwrites them. Memory: a state and
    what a step needs. Call it in inference mode.

    Args:
        after: how many steps are ordinary ones.
    """

    def __init__(self, model: CausalLM, capture: Capture, after: int = 8) -> None:
        self._model, self._capture, self._first = model, capture, after
        self._replay: Callable[[], object] | None = None
        self._failed = False
        self._ids: Tensor
        self._logits: Tensor
        self._state: State

    def __call__(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (b, V) after ids (b,), and the next state."""
        if self._replay is None or not self._fits(ids, state):
            logits, after = self._model.step(ids, state)
            self._first -= 1
            if self._first <= 0 and not self._failed and _form(after) == _form(state):
                self._record(ids, logits, after)
            return logits, after
        self._ids.copy_(ids)
        if state is not self._state:
            self._write(state)
        self._replay()
        return self._logits, self._state

    def _fits(self, ids: Tensor, state: State) -> bool:
        return state is self._state or (
            ids.shape == self._ids.shape and _form(state) == _form(self._state)
        )

    def _record(self, ids: Tensor, logits: Tensor, state: State) -> None:
        self._ids, self._logits = ids.clone(), logits.clone()
        self._state = rebuilt(state, [leaf.clone() for leaf in leaves(state)])

        def run() -> None:
            logits, after = self._model.step(self._ids, self._state)
            self._logits.copy_(logits)
            self._write(after)

        try:
            self._replay = self._capture(run)
        except RuntimeError as error:
            self._failed, self._replay = True, None
            reason = str(error).strip().splitlines()[:1]
            warnings.warn(
                f"text is generated without a CUDA graph, slower: {' '.join(reason)}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _write(self, state: State) -> None:
        for buffer, leaf in zip(leaves(self._state), leaves(state), strict=True):
            buffer.copy_(leaf)


def cuda_graph(device: torch.device, run: Callable[[], None]) -> Callable[[], object]:
    """Record `run` in a CUDA graph on `device`; returns what replays it.

    Raises:
        RuntimeError: something in it cannot be recorded.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up in the first runs
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay


def _form(state: State) -> list[tuple[torch.Size, torch.dtype]]:
    return [(leaf.shape, leaf.dtype) for leaf in leaves(state)]
