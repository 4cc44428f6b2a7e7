"""Vim with other mixers and with the options of experiments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import CheckpointError
from ssm_vision.models.vim import Vim
from ssm_vision.models.vim_config import VimConfig

INFO = DataInfo(input_shape=(3, 20, 28), n_outputs=5)
SMALL = VimConfig(
    patch_size=8, stride=4, embed_dim=16, depth=2, mixer_options={"d_state": 3}, drop_path=0.0
)


def built(info: DataInfo = INFO, **options: Any) -> Vim:
    torch.manual_seed(0)
    return Vim(replace(SMALL, **options), info)


@pytest.mark.parametrize(
    "mixer", ["mamba", "mamba2", "mamba3", "s4", "s4d", "s5", "rnn", "attention"]
)
def test_any_mixer(mixer: str) -> None:
    model = built(mixer=mixer, mixer_options={}, class_token="none")
    y = model(torch.randn(2, 3, 20, 28))
    y.sum().backward()
    assert y.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("option", "new"),
    [
        ({"squeeze_excitation": "input"}, 4),
        ({"squeeze_excitation": "mixer", "se_reduction": 5}, 4),
        ({"squeeze_excitation": "block"}, 4),
        ({"depthwise": 2}, 7),
    ],
)
def test_experiments_add_keys_and_leave_the_others(option: dict[str, Any], new: int) -> None:
    plain, model = built(), built(**option)
    names = set(model.state_dict())
    assert set(plain.state_dict()) < names
    assert len(names) == len(plain.state_dict()) + 2 * new
    images = torch.randn(2, 3, 20, 28)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(model(images), plain(images), atol=1e-4)


class TestAdapt:
    """Checkpoints of another size made fit for fine-tuning."""

    def test_longer_table_is_resampled_extra_rows_first(self) -> None:
        old = built(DataInfo((3, 16, 16), 5))  # 3 x 3 patches and a class token at 4
        new = built(DataInfo((3, 32, 32), 5))  # 7 x 7
        tensors = old.state_dict()
        adapted = new.adapt(tensors)
        table = tensors["pos_embed"]
        grid = table[:, 1:].reshape(1, 3, 3, 16).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, (7, 7), mode="bicubic", align_corners=False)
        expected = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
        assert torch.equal(adapted["pos_embed"], expected)
        assert tensors["pos_embed"].shape == (1, 10, 16)  # the caller's dict is as it was
        new.load_state_dict(adapted)

    def test_another_head_is_left_out(self) -> None:
        old, new = built(), built(DataInfo((3, 20, 28), 7))
        adapted = new.adapt(old.state_dict())
        assert set(old.state_dict()) - set(adapted) == {"head.weight", "head.bias"}
        missing, unexpected = new.load_state_dict(adapted, strict=False)
        assert (missing, unexpected) == (["head.weight", "head.bias"], [])

    def test_what_fits_is_kept(self) -> None:
        old, new = built(), built()
        adapted = new.adapt(old.state_dict())
        assert all(torch.equal(adapted[n], tensor) for n, tensor in old.state_dict().items())
        assert set(adapted) == set(old.state_dict())

    def test_a_table_that_is_no_square(self) -> None:
        new = built(DataInfo((3, 32, 32), 5))
        with pytest.raises(CheckpointError, match="pos_embed has 25 rows, expected 1 of class"):
            new.adapt(built().state_dict())
