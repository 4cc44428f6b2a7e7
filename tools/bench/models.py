"""Part models: a training step (forward and backward, no optimizer) of whole models.

Six layers, 256 wide: a Mamba tower against Transformers, on images of CIFAR-10 (64 patches) and on
256 characters. The MNIST recipes: bidirectional Mamba against the RNN. Models are built through the
registry, so they are what a recipe trains. The limit counts the matrix products alone, at the rate
of multiply-adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssm_core import DataInfo, make_config, plugin_host
from ssm_text.char_lm import CharLM, CharLMConfig
from ssm_vision import create_model

from .compare import add_times
from .options import Options
from .report import Report
from .timing import Action, alternate

D_MODEL, LAYERS, HEADS = 256, 6, 4
MLP = 512  # hidden channels of the usual comparison; the Transformer then has 1.2 times the weights
EQUAL_MLP = 340  # hidden channels with which both have as many weights
VOCABULARY = 65  # characters of tiny Shakespeare
CIFAR = DataInfo((3, 32, 32), 10, tuple(str(i) for i in range(10)))
MAMBA = "mamba"


class TorchEncoder(nn.Module):
    """PyTorch's own pre-norm Transformer in the place of a tower, (b, l, d) -> (b, l, d)."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            D_MODEL, HEADS, MLP, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.causal = causal

    def forward(self, x: Tensor, state: None = None, mask: None = None) -> Tensor:
        past = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if self.causal else None
        y: Tensor = self.encoder(x, mask=past, is_causal=self.causal)
        return y


@dataclass(frozen=True)
class Task:
    """A comparison: models by name, the first is ours; inputs and labels of one batch."""

    name: str
    models: Mapping[str, Callable[[], nn.Module]]
    inputs: Tensor
    labels: Tensor


def run(report: Report, options: Options) -> None:
    for task in tasks(options.smoke):
        run_task(report, options, task)


def tasks(smoke: bool) -> list[Task]:
    images, texts, digits = (2, 2, 2) if smoke else (128, 32, 64)
    ids = torch.randint(VOCABULARY, (texts, 16 if smoke else 256))
    vision = {
        MAMBA: lambda: patch_model("mamba", 0),
        f"attention, mlp {MLP}": lambda: patch_model("attention", MLP, causal=False),
        f"attention, mlp {EQUAL_MLP}": lambda: patch_model("attention", EQUAL_MLP, causal=False),
        f"nn.Transformer, mlp {MLP}": lambda: with_encoder(patch_model("mamba", 0), causal=False),
    }
    text = {
        MAMBA: lambda: text_model("mamba", 0),
        f"attention, mlp {MLP}": lambda: text_model("attention", MLP),
        f"attention, mlp {EQUAL_MLP}": lambda: text_model("attention", EQUAL_MLP),
        f"nn.Transformer, mlp {MLP}": lambda: with_encoder(text_model("mamba", 0), causal=True),
    }
    mnist = {
        "mnist-bimamba": lambda: create_model("mnist_bimamba"),
        "mnist-rnn": lambda: create_model("mnist_rnn"),
        "mnist-transformer": lambda: create_model("mnist_transformer"),
    }
    return [
        Task("CIFAR", vision, torch.randn(images, 3, 32, 32), torch.randint(10, (images,))),
        Task("text", text, ids, ids.roll(-1, 1)),
        Task("MNIST", mnist, torch.randn(digits, 1, 28, 28), torch.randint(10, (digits,))),
    ]


def patch_model(mixer: str, mlp_hidden: int, **mixer_options: Any) -> nn.Module:
    """The classifier of the CIFAR-10 recipe, 64 patches, with the sizes of this comparison."""
    spec = plugin_host().get("models", "patch-classifier")
    config = make_config(
        spec.config,
        {
            "patch": 4,
            "d_model": D_MODEL,
            "n_layers": LAYERS,
            "mixer": mixer,
            "mixer_options": mixer_options,
            "mlp_hidden": mlp_hidden,
        },
        "model",
    )
    model: nn.Module = spec.build(config, CIFAR)
    return model


def text_model(mixer: str, mlp_hidden: int) -> nn.Module:
    """The model of the tiny Shakespeare recipe without its dropout."""
    return CharLM(VOCABULARY, CharLMConfig(D_MODEL, LAYERS, mixer, mlp_hidden=mlp_hidden))


def with_encoder(model: nn.Module, causal: bool) -> nn.Module:
    model.tower = TorchEncoder(causal)
    return model


def run_task(report: Report, options: Options, task: Task) -> None:
    models = {name: build() for name, build in task.models.items()}
    steps = {name: step(model, task) for name, model in models.items()}
    products = {name: multiply_adds(action) for name, action in steps.items()}
    first, *others = steps
    budget_s = options.budget_s * 2
    all_times = alternate(steps, budget_s)
    for name in (first, *others):
        model, times = models[name], all_times[name]
        weights = sum(p.numel() for p in model.parameters())
        add_times(
            report,
            f"{task.name} {tuple(task.inputs.shape)}",
            "step",
            name,
            times,
            of_limit=options.limits().products_s(products[name]) / times.median,
            ratio=times.median / all_times[first].median,
            note=f"{weights / 1e6:.2f} M weights, {products[name] / 1e9:.1f} G multiply-adds",
        )


def step(model: nn.Module, task: Task) -> Action:
    def run() -> float:
        model.zero_grad(set_to_none=True)
        start = time.perf_counter()
        logits = model(task.inputs)
        F.cross_entropy(logits.flatten(0, -2), task.labels.flatten()).backward()
        return time.perf_counter() - start

    return run


def multiply_adds(action: Action) -> float:
    """Multiply-adds of the matrix products in one run."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() / 2
