"""What holds for every family: names, types, marks, and errors in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_cases import golden

from ssm_core import Mamba, MambaConfig, SsmError, from_official
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_core.official import FAMILIES


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("mamba1", "unknown family of official checkpoints 'mamba1': did you mean 'mamba' or "),
        ("S4", "unknown family of official checkpoints 'S4': "),
    ],
)
def test_unknown_family(family: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        from_official(family, {})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_to_load_names_what_is_missing(family: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^{family}: the state dict does not fit: missing "):
        from_official(family, {})


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        (
            {"d_sate": 16},
            UnknownNameError,
            "unknown option of from_official('mamba', ..) 'd_sate': did you mean 'd_state' or ",
        ),
        (
            {"d_state": 8},
            ConfigError,
            "mamba: d_state is 8, but A_log of shape (64, 16) makes it 16",
        ),
        (
            {"bias": True},
            ConfigError,
            "mamba: bias is True, but a state dict without in_proj.bias makes it False",
        ),
        ({"dt_min": -1}, ConfigError, "mamba: MambaConfig: dt_min is -1"),
        ({"dt_min": "slow"}, ConfigError, ""),
    ],
)
def test_options_are_checked(option: dict[str, Any], error: type[SsmError], message: str) -> None:
    with pytest.raises(error) as caught:
        from_official("mamba", Mamba(32).state_dict(), **option)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_deeper_layer_is_found_and_its_prefix_told() -> None:
    with pytest.raises(CheckpointError) as caught:
        from_official("mamba", golden("hf_mamba").state_dict)
    assert "unexpected backbone.embeddings.weight, " in str(caught.value)
    assert "(33 in all)" in str(caught.value)
    hint = "; pass prefix='backbone.layers.0.mixer.' if that is the layer meant"
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_parameter_has_the_type_of_its_tensor(dtype: torch.dtype) -> None:
    tensors = {k: v.to(dtype) for k, v in Mamba(16).state_dict().items()}
    tensors["A_log"] = tensors["A_log"].float()  # as in mixed precision
    layer = from_official("mamba", tensors)
    for name, parameter in layer.named_parameters():
        assert parameter.dtype is tensors[name].dtype
        assert torch.equal(parameter, tensors[name])
    y = layer(torch.randn(1, 3, 16, dtype=dtype))
    assert y.dtype is dtype


@pytest.mark.parametrize("wrong", [torch.int64, torch.complex64])
def test_other_types_are_refused(wrong: torch.dtype) -> None:
    tensors = dict(Mamba(16).state_dict())
    tensors["D"] = tensors["D"].to(wrong)
    with pytest.raises(CheckpointError, match=rf"^mamba: D is {wrong}, expected torch.float32"):
        from_official("mamba", tensors)


def test_values_are_copies_and_marks_stay() -> None:
    made = Mamba(16, MambaConfig(bias=True))
    tensors = {k: v.double() for k, v in made.state_dict().items()}
    layer = from_official("mamba", tensors)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for value in tensors.values():
        value.zero_()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    marks = ("_no_weight_decay", "_no_reinit", "_optim")
    for (_, new), (_, old) in zip(layer.named_parameters(), made.named_parameters(), strict=True):
        assert new.requires_grad
        assert [getattr(new, mark, None) for mark in marks] == [
            getattr(old, mark, None) for mark in marks
        ]


def test_every_misfit_is_named_at_once() -> None:
    tensors = dict(Mamba(16).state_dict())
    del tensors["A_log"], tensors["out_proj.weight"]
    tensors |= {"E": torch.zeros(2), "D": torch.zeros(5)}
    with pytest.raises(CheckpointError) as caught:
        from_official("mamba", tensors)
    assert str(caught.value) == (
        "mamba: the state dict does not fit: missing A_log, out_proj.weight; unexpected E; "
        "D has shape (5,), expected (E) = (32)"
    )
