"""Part latency: published vision models at batch 1, each beside a well-known one of its size."""

from __future__ import annotations

import time

import torch
from torch import nn

from ssm_vision import create_model

from .compare import add_times
from .options import Options
from .report import Report
from .timing import Action, alternate

SIZE = 224
#: ours -> the peer, both by the names of timm
PAIRS = {
    "vim_tiny_patch16_224": "deit_tiny_patch16_224",
    "vmamba_tiny_s1l8": "swin_tiny_patch4_window7_224",
    "vanilla_vmamba_tiny": "swin_tiny_patch4_window7_224",
    "mambavision_tiny": "convnext_tiny",
}


def run(report: Report, options: Options) -> None:
    size = 32 if options.smoke else SIZE
    for ours, peer in PAIRS.items():
        models = {ours: create_model(ours, img_size=size), peer: peer_model(peer, size)}
        actions = {name: inference(model.eval(), size) for name, model in models.items()}
        times = alternate(actions, options.budget_s)
        for name, model in models.items():
            weights = sum(p.numel() for p in model.parameters())
            add_times(
                report,
                f"(1, 3, {size}, {size})",
                "inference",
                name,
                times[name],
                ratio=times[name].median / times[ours].median,
                note=f"{weights / 1e6:.2f} M weights",
            )


def peer_model(name: str, size: int) -> nn.Module:
    """A model of timm; only Transformers are told the size of their images."""
    import timm

    if name.startswith("convnext"):
        return timm.create_model(name)
    return timm.create_model(name, img_size=size)


def inference(model: nn.Module, size: int) -> Action:
    images = torch.randn(1, 3, size, size)

    def run() -> float:
        with torch.no_grad():
            start = time.perf_counter()
            model(images)
            return time.perf_counter() - start

    return run
