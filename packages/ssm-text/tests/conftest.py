"""Small models and texts that several tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssm_text import CharLM, CharLMConfig, Vocabulary

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
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
