"""The blocks of mamba_ssm: their two streams, the types of these, and published values of Vim."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compat_cases import random, strong
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.compat.block import Block, MixerBlock
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba import Mamba
from ssm_core.compat.norm import add_norm
from ssm_kernels.compat.layer_norm import RMSNorm

REPOSITORY = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("norm", [nn.LayerNorm, RMSNorm])
def test_stack_is_the_usual_pre_norm_stack(norm: Any, fused: bool) -> None:
    mlp = partial(nn.Linear, out_features=6)
    blocks = [strong(Block(6, Mamba, mlp, norm, fused, residual_in_fp32=True), i) for i in range(3)]
    x = random(2, 5, 6)
    hidden, residual = x, None
    expected = x
    for block in blocks:
        hidden, residual = block(hidden, residual)
        expected = expected + block.mixer(block.norm(expected))
        torch.testing.assert_close(residual, expected)
        expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(hidden + residual, expected)


def test_block_without_mlp() -> None:
    new, old = Block(6, Mamba, nn.Identity), MixerBlock(6, Mamba)
    assert new.mlp is None
    old.load_state_dict(new.state_dict())
    x, residual = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    torch.testing.assert_close(old(x, residual), new(x, residual), rtol=0, atol=0)


@pytest.mark.parametrize("norm", [nn.LayerNorm, RMSNorm])
@pytest.mark.parametrize("in_float32", [False, True])
def test_residual_of_half_precision(norm: Any, in_float32: bool) -> None:
    """A small branch beside a large sum: it stays in the sum only in float32."""
    module = norm(4).bfloat16()
    x = torch.full((1, 1, 4), 2.0**-8).bfloat16()
    large = torch.tensor([[[4.0, -4.0, 2.0, 1.0]]])
    for fused in (False, True):
        y, total = add_norm(module, x, large if in_float32 else large.bfloat16(), fused, in_float32)
        assert total.dtype == (torch.float32 if in_float32 else torch.bfloat16)
        assert y.dtype == torch.bfloat16
        assert bool((total - large)[..., 0].any()) == in_float32


def test_fused_norm_reads_what_was_not_rounded() -> None:
    """Differences below the digits of bfloat16 vanish only where the sum is rounded before."""
    x = torch.zeros(1, 1, 2).bfloat16()
    residual = torch.tensor([[[256.5, 256.0]]])
    y, _ = add_norm(nn.LayerNorm(2).bfloat16(), x, residual, True, True)
    assert y[0, 0, 0] > 0.9
    y, _ = add_norm(nn.LayerNorm(2).bfloat16(), x, residual, False, True)
    assert not y.any()


def test_arguments_reach_the_mixer() -> None:
    class Mixer(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()

        def forward(self, x: Tensor, inference_params: object, factor: float = 1.0) -> Tensor:
            assert inference_params is params
            return x * factor

        def allocate_inference_cache(self, *sizes: int, dtype: object, extra: int) -> object:
            return (*sizes, dtype, extra)

    params = InferenceParams(9, 2)
    block = Block(6, Mixer, nn.Identity)
    x = torch.randn(2, 5, 6)
    y, residual = block(x, inference_params=params, factor=3.0)
    torch.testing.assert_close(y, 3 * F.layer_norm(x, (6,)))
    assert residual is x
    assert block.allocate_inference_cache(2, 9, dtype=None, extra=4) == (2, 9, None, 4)


def test_vim_of_these_blocks_has_the_published_values() -> None:
    """A Vim put together as its repository does it, with the class token in the middle."""
    path = Path(os.environ.get("SSM_GOLDENS", REPOSITORY.parent / "shared" / "goldens"))
    if not (path / "vim_mid.safetensors").is_file():
        pytest.skip(f"no reference values in {path} (SSM_GOLDENS)")
    with safe_open(path / "vim_mid.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["kw"])
    sd = {name.removeprefix("sd."): t for name, t in tensors.items() if name.startswith("sd.")}

    dim, patch = config["embed_dim"], config["patch_size"]
    mixer = partial(Mamba, bimamba_type="v2", if_divide_out=True)
    norm = partial(RMSNorm, eps=1e-5)
    model = nn.ModuleDict(
        {
            "layers": nn.ModuleList(
                MixerBlock(dim, mixer, norm, True, True) for _ in range(config["depth"])
            ),
            "norm_f": norm(dim),
            "head": nn.Linear(dim, config["num_classes"]),
            "patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, config["stride"])}),
        }
    )
    tokens = {name: sd.pop(name) for name in ("cls_token", "pos_embed")}
    model.load_state_dict(sd)
    with torch.no_grad():
        x = model["patch_embed"]["proj"](tensors["x"]).flatten(2).transpose(1, 2)
        middle = x.shape[1] // 2
        cls = tokens["cls_token"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :middle], cls, x[:, middle:]], dim=1) + tokens["pos_embed"]
        residual = None
        for block in model["layers"]:
            x, residual = block(x, residual)
        x, _ = add_norm(model["norm_f"], x, residual, True, True)
        y = model["head"](x[:, middle])
    assert (y - tensors["y"]).abs().max() <= 1e-5 * tensors["y"].abs().max()
