"""Part mamba2: the SSD scan and the layer on the CPU against those of Hugging Face transformers.

The layers have the same weights: both have the names of the official checkpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssm_core import Mamba2, Mamba2Config
from ssm_kernels import ssd_scan, ssd_scan_reference

from . import contest
from .contest import Call, Contest, Entry, Tensors, in_words
from .options import Options
from .peers import transformers_mamba2 as theirs
from .report import OURS, Report

#: name -> steps per chunk: its default, and what is faster on a CPU
TRANSFORMERS = {"transformers": 256, "transformers, chunk 64": 64}
TOLERANCE = 1e-4


class Size(NamedTuple):
    b: int = 8
    l: int = 512
    d: int = 256


def run(report: Report, options: Options) -> None:
    size = Size(2, 20, 8) if options.smoke else Size()
    config = Mamba2Config(d_state=4, headdim=8) if options.smoke else Mamba2Config()
    contest.run(report, scan(size, config), options)
    contest.run(report, layer(size, config), options)


def scan(size: Size, config: Mamba2Config) -> Contest:
    """The operator inside the layer."""
    return Contest(
        "ssd_scan",
        in_words(size),
        (
            Entry(OURS, lambda: partial(_scan, ssd_scan)),
            *(Entry(name, partial(theirs.load_scan, q)) for name, q in TRANSFORMERS.items()),
        ),
        partial(_scan, ssd_scan_reference),
        scan_inputs(size, config),
        scan_inputs(size._replace(b=1), config),
        size.b * size.l * config.expand * size.d * config.d_state,
        TOLERANCE,
    )


def _scan(function: Any, *inputs: Tensor) -> Tensor:
    y: Tensor = function(*inputs)
    return y


def scan_inputs(size: Size, config: Mamba2Config) -> Tensors:
    """x, dt, A, B, C, D with the step sizes and decays of an untrained layer."""
    b, l, d = size
    sizes = config.sizes(d)
    h, g, n = sizes.heads, config.ngroups, config.d_state
    tensors = (
        torch.randn(b, l, h, sizes.headdim),
        torch.exp(torch.empty(b, l, h).uniform_(-6.9, -2.3)),
        -torch.linspace(1, 16, h),
        torch.randn(b, l, g, n),
        torch.randn(b, l, g, n),
        torch.ones(h),
    )
    return tuple(x.requires_grad_() for x in tensors)


def layer(size: Size, config: Mamba2Config) -> Contest:
    """The whole mixer; its inputs are x and the weights, ordered by their names."""
    mixer = Mamba2(size.d, config)
    weights = dict(sorted(mixer.named_parameters()))
    x = torch.randn(size).requires_grad_()

    def peer(chunk_size: int) -> Call:
        return call_of(theirs.load_mixer(size.d, config, chunk_size), list(weights))

    return Contest(
        "layer",
        in_words(size),
        (
            Entry(OURS, lambda: call_of(mixer, list(weights))),
            *(Entry(name, partial(peer, q)) for name, q in TRANSFORMERS.items()),
        ),
        call_of(mixer, list(weights)),
        (x, *weights.values()),
        (x[:1].detach().requires_grad_(), *weights.values()),
        size.b * size.l * config.expand * size.d * config.d_state,
        TOLERANCE,
    )


def call_of(module: nn.Module, names: list[str]) -> Call:
    """The module as a function of its input and of the weights with these names."""
    own = {name for name, _ in module.named_parameters()}
    if own != set(names):
        raise RuntimeError(f"its weights are {sorted(own)}, expected {names}")

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(names, weights, strict=True)), (x,))
        return y

    return call
