"""The block: where squeeze-and-excitation stands, and what class tokens see of a convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssm_vision.models.vim_block import VimBlock
from ssm_vision.models.vim_config import ClassToken, Squeezed, VimConfig
from ssm_vision.models.vim_tokens import Shuffle, places_of

X = torch.randn(2, 13, 16, generator=torch.Generator().manual_seed(0))


def block(**options: Any) -> VimBlock:
    return VimBlock(VimConfig(embed_dim=16, mixer_options={"d_state": 2}, **options), 0.0)


def test_residual_around_the_mixer() -> None:
    module, places = block(), places_of("middle", 3, 4)
    torch.testing.assert_close(module(X, places), X + module.mixer(module.norm(X)))


@pytest.mark.parametrize("where", ["input", "mixer", "block"])
def test_places_of_squeeze_and_excitation(where: Squeezed) -> None:
    places = places_of("middle", 3, 4)
    module = block(squeeze_excitation=where)

    def excited(at: str, x: torch.Tensor) -> torch.Tensor:
        assert module.squeeze_excitation is not None
        return module.squeeze_excitation(x, places.patches(x)) if at == where else x

    branch = excited("mixer", module.mixer(excited("input", module.norm(X))))
    torch.testing.assert_close(module(X, places), excited("block", X + branch))


@pytest.mark.parametrize("kind", ["middle", "head", "none"])
def test_convolution_leaves_class_tokens_as_they_are(kind: ClassToken) -> None:
    places = places_of(kind, 3, 4)
    x = X[:, : places.length]
    plain, module = block(), block(depthwise=2)
    module.load_state_dict(plain.state_dict(), strict=False)
    y, without = module(x, places), plain(x, places)
    for place in places.class_at:
        assert torch.equal(y[:, place], without[:, place])
    assert module.depthwise is not None
    branch = module.depthwise(places.patches(without), (3, 4))
    torch.testing.assert_close(places.patches(y), places.patches(without) + branch)


def test_an_order_of_tokens_changes_nothing_but_the_order() -> None:
    places = places_of("random", 3, 4)
    config = VimConfig(
        embed_dim=16,
        mixer="attention",
        mixer_options={"causal": False},
        squeeze_excitation="block",
        depthwise=2,
    )
    module = VimBlock(config, 0.0)
    shuffle = Shuffle.moving_class_token(places, X.device)
    moved = module(X.index_select(1, shuffle.there), places, shuffle)
    torch.testing.assert_close(moved.index_select(1, shuffle.back), module(X, places))


def test_the_stream_is_float32_in_half_precision() -> None:
    module = block(depthwise=2, squeeze_excitation="mixer").bfloat16()
    assert module(X.bfloat16(), places_of("middle", 3, 4)).dtype is torch.float32
