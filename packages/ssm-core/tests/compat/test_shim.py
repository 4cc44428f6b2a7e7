"""Code of public models imports these classes under the original's names and finds them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

import ssm_core.compat.mamba
from ssm_core.errors import ConfigError
from ssm_kernels.compat import install, providers, uninstall


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-ins with the entry point of this package alone, whatever is installed."""
    uninstall()
    own = EntryPoint("ssm-core", "ssm_core.compat:compat_modules", providers.GROUP)
    monkeypatch.setattr(providers, "entry_points", lambda group: [own])
    providers.provided.cache_clear()
    install(quiet=True)
    yield
    uninstall()
    providers.provided.cache_clear()


UNET_LAYER = """
import torch
from torch import nn
from mamba_ssm import Mamba

class MambaLayer(nn.Module):
    def __init__(self, dim, d_state=16, d_conv=4, expand=2):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(d_model=dim, d_state=d_state, d_conv=d_conv, expand=expand)

    def forward(self, x):
        if x.dtype == torch.float16:
            x = x.type(torch.float32)
        B, C = x.shape[:2]
        n_tokens, img_dims = x.shape[2:].numel(), x.shape[2:]
        x_flat = x.reshape(B, C, n_tokens).transpose(-1, -2)
        return self.mamba(self.norm(x_flat)).transpose(-1, -2).reshape(B, C, *img_dims)
"""

VISION_BLOCKS = """
from functools import partial
from torch import nn
from mamba_ssm.modules.mamba_simple import Mamba, Block
from mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn

def create_block(d_model, layer_idx):
    mixer_cls = partial(Mamba, layer_idx=layer_idx, bimamba_type="v2", if_divide_out=True,
                        init_layer_scale=None, device=None, dtype=None)
    norm_cls = partial(RMSNorm, eps=1e-5)
    return Block(d_model, mixer_cls, norm_cls=norm_cls, fused_add_norm=True, residual_in_fp32=True)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([create_block(12, i) for i in range(2)])
        self.norm_f = RMSNorm(12)

    def forward(self, x):
        hidden, residual = x, None
        for layer in self.layers:
            hidden, residual = layer(hidden, residual, inference_params=None)
        fn = rms_norm_fn if isinstance(self.norm_f, RMSNorm) else layer_norm_fn
        return fn(hidden, self.norm_f.weight, self.norm_f.bias, eps=self.norm_f.eps,
                  residual=residual, prenorm=False, residual_in_fp32=True)
"""


def run(source: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(source, names)
    return names


def trains(model: nn.Module, x: torch.Tensor) -> bool:
    """Whether a few steps of gradient descent make the model's output smaller."""
    losses = []
    for _ in range(5):
        loss = model(x).square().mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        losses.append(float(loss.detach()))
    return losses[-1] < losses[0]


@pytest.mark.usefixtures("shim")
def test_layer_of_a_segmentation_model() -> None:
    model = run(UNET_LAYER)["MambaLayer"](6)
    assert type(model.mamba) is ssm_core.compat.mamba.Mamba
    assert trains(model, torch.randn(2, 6, 3, 4, 2))


@pytest.mark.usefixtures("shim")
def test_blocks_of_a_vision_model() -> None:
    from torch.nn.functional import rms_norm

    model = run(VISION_BLOCKS)["Model"]()
    x = torch.randn(2, 9, 12)
    expected = x
    for block in model.layers:
        expected = expected + block.mixer(block.norm(expected))
    torch.testing.assert_close(model(x), rms_norm(expected, (12,), eps=1e-5))
    assert not torch.equal(model(x.flip(1)).flip(1), model(x))

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = model, nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.model(x).mean(dim=1))

    assert trains(Pooled(), x)


@pytest.mark.usefixtures("shim")
def test_a_fork_that_cannot_be_told_apart_says_so() -> None:
    from mamba_ssm import Mamba

    with pytest.raises(ConfigError, match="SegMamba"):
        Mamba(d_model=8, d_state=16, d_conv=4, expand=2, bimamba_type="v3")


@pytest.mark.usefixtures("shim")
def test_v1_is_the_function_of_the_fork() -> None:
    from mamba_ssm.ops.selective_scan_interface import bimamba_inner_fn

    mixer = ssm_core.compat.mamba.Mamba(8, bimamba_type="v1")
    x = torch.randn(2, 5, 8)
    y = bimamba_inner_fn(
        mixer.in_proj(x).transpose(1, 2),
        mixer.conv1d.weight,
        mixer.conv1d.bias,
        mixer.x_proj.weight,
        mixer.dt_proj.weight,
        mixer.out_proj.weight,
        None,
        -mixer.A_log.exp(),
        -mixer.A_b_log.exp(),
        D=mixer.D,
        delta_bias=mixer.dt_proj.bias,
    )
    torch.testing.assert_close(mixer(x), y)
