"""Options as texts and values, under two names, against the tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssm_core.errors import ConfigError
from ssm_core.official.options import Fact, check_facts, fields_of, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ('"dplr"', "dplr"),
        ("zoh", "zoh"),
        ("[0.0, Infinity]", [0.0, math.inf]),
        (16, 16),
        (None, None),
    ],
)
def test_texts_are_read_as_values(text: Any, value: Any) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)


@pytest.mark.parametrize("given", [8, True, "wide"])
def test_contradiction_names_option_and_tensor(given: Any) -> None:
    facts = {"width": Fact(1, "weight")}
    with pytest.raises(ConfigError) as caught:
        check_facts("it", {"width": given}, facts, {"weight": torch.zeros(3, 1)})
    expected = f"it: width is {given!r}, but weight of shape (3, 1) makes it 1"
    assert str(caught.value) == expected


def test_contradiction_names_the_absent_tensor() -> None:
    with pytest.raises(ConfigError, match=r"^it: bias is True, but a state dict without b makes"):
        check_facts("it", {"bias": True}, {"bias": Fact(False, "b")}, {})
    check_facts("it", {"bias": False}, {"bias": Fact(False, "b"), "k": Fact(3, "w")}, {})


def test_two_names_of_one_field() -> None:
    names = {"disc": "rule", "discretization": "rule", "other": "other"}
    assert fields_of("it", {"disc": 1, "discretization": 1, "unread": 2}, names) == {"rule": 1}
    with pytest.raises(ConfigError, match=r"^it: discretization is 2, but disc, .*, is 1$"):
        fields_of("it", {"disc": 1, "discretization": 2}, names)
