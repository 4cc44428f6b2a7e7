"""What `ssm-train bench` times here: the character models of the recipes, against context."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import BenchmarkSpec, make_config
from ssm_text.char_lm import CharLM, CharLMConfig

RECIPES = Path(__file__).parent / "recipes"
#: characters of tiny Shakespeare
VOCAB_SIZE = 65
BASELINES = ("attention", "transformer", "rnn")


@cache
def _options() -> dict[str, dict[str, Any]]:
    """Options of the character model of each recipe that has one."""
    recipes = {path.stem: yaml.safe_load(path.read_text()) for path in RECIPES.glob("*.yaml")}
    found = {name: dict(recipe["model"]) for name, recipe in sorted(recipes.items())}
    return {name: model for name, model in found.items() if model.pop("name") == "char-lm"}


def models() -> dict[str, bool]:
    """Every recipe of a character model, and whether its mixer is one to compare with."""
    return {name: model.get("mixer") in BASELINES for name, model in _options().items()}


def build(name: str, context: int) -> nn.Module:
    """The model of a recipe; position embeddings, where it has some, for `context` characters."""
    options = _options()[name]
    if options.get("positions"):
        options = options | {"positions": context}
    return CharLM(VOCAB_SIZE, make_config(CharLMConfig, options, "model"))


def texts(model: nn.Module, batch: int, context: int) -> Tensor:
    """Random ids (b, l)."""
    return torch.randint(VOCAB_SIZE, (batch, context))


def loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean cross entropy of each id given those before it."""
    return F.cross_entropy(logits.float().flatten(0, 1), ids.roll(-1, dims=1).flatten())


BENCHMARK = BenchmarkSpec(
    name="language models",
    help="recipes of character models: ssm-train list recipes",
    models=models,
    build=build,
    inputs=texts,
    loss=loss,
    size="context",
    size_label="context in characters",
    default_size=256,
    unit="characters",
    count=lambda batch, context: batch * context,
    preload=("ssm_text.benchmark",),
)
