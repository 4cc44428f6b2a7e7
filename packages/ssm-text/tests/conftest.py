"""Small models and texts that several tests share."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ssm_text import CausalLM, CharLM, CharLMConfig, Vocabulary

REPOSITORY = Path(__file__).parents[3]
sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests


@pytest.fixture(scope="session")
def make_model() -> Callable[..., CharLM]:
    """A small model with random weights, float64 and without dropout by default."""

    def make(vocab_size: int = 7, dtype: torch.dtype = torch.float64, **options: object) -> CharLM:
        torch.manual_seed(0)
        options = {"d_model": 8, "n_layers": 2, "tie_embeddings": False} | options
        model = CharLM(vocab_size, CharLMConfig(**options)).to(dtype).eval()  # type: ignore[arg-type]
        with torch.no_grad():  # the initial logits are nearly uniform: make them differ
            model.embedding.weight.mul_(50)
            model.head.weight.mul_(5)
        return model

    return make


class ToyState(NamedTuple):
    ids: Tensor  # (b, n)
    real: Tensor  # (b, n) False on padding


class Toy(CausalLM):
    """Logits depend on every token read and on its place; no more places than `context`."""

    def __init__(self, context: int | None) -> None:
        super().__init__()
        self.vocab_size, self.context = 7, context
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(64, 7, 7, generator=generator, dtype=torch.float64)
        self.values = torch.nn.Parameter(values)

    def hidden(self, ids, state, return_state, mask):
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        if state is not None:
            ids, real = torch.cat([state.ids, ids], 1), torch.cat([state.real, real], 1)
        places = (real.cumsum(1) - 1).clamp(min=0)
        assert self.context is None or int(real.sum(1).max()) <= self.context
        parts = self.values[places, ids] * real.unsqueeze(2)
        new = ids.shape[1] - (0 if state is None else state.ids.shape[1])
        read = parts.cumsum(1)[:, ids.shape[1] - new :]
        return read, ToyState(ids, real) if return_state else None

    def logits(self, hidden):
        return (3 * hidden).sin()

    def initial_state(self, batch):
        return ToyState(torch.zeros(batch, 0).long(), torch.zeros(batch, 0).bool())


@pytest.fixture(scope="session")
def toy_model() -> Callable[[int | None], CausalLM]:
    """A model whose state takes in so many tokens, None: 64."""
    return Toy


@pytest.fixture(scope="session")
def slow_nats() -> Callable[[CausalLM, list[int], int], tuple[float, bool]]:
    """Minus log p(target | text) by steps, the slow way, and whether the target is likeliest."""

    def nats(model: CausalLM, text: list[int], target: int) -> tuple[float, bool]:
        state = model.initial_state(1)
        with torch.no_grad():
            for id in text:
                logits, state = model.step(torch.tensor([id]), state)
        chances = torch.softmax(logits[0], 0)
        return -math.log(float(chances[target])), int(chances.argmax()) == target

    return nats


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(["\n", *"abcdef"])


@pytest.fixture
def data_root() -> Path:
    """The folder of downloaded data sets; skips where there is no tiny Shakespeare in it."""
    root = Path(os.environ.get("SSM_DATA_ROOT", REPOSITORY.parent / "shared" / "data"))
    if not (root / "tinyshakespeare" / "input.txt").is_file():
        pytest.skip(f"no tinyshakespeare/input.txt in {root} (SSM_DATA_ROOT)")
    return root


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model trained on a very regular text, by the command line."""
    from ssm_core.cli import main

    folder = tmp_path_factory.mktemp("trained")
    (folder / "abc.txt").write_text("abcdefgh\n" * 400)
    words = f"""fit stdlib-mamba --out {folder / "runs"} --model.d_model 16 --model.n_layers 1
        --data text-file --data.path {folder / "abc.txt"} --data.context 18 --loader.batch_size 8
        --optim.lr 0.02 --optim.warmup_steps 5 --trainer.max_steps 40 --trainer.eval_every null
        --trainer.accelerator cpu --trainer.log_every 1"""
    assert main(words.split()) == 0
    return folder / "runs" / "stdlib-mamba-001"
