from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ssm_core import make_config
from ssm_core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Options:
    """Options.

    Args:
        width: a width.
    """

    width: int = 4
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width is {self.width}, expected 1 or more")


def test_make_config_defaults_and_values():
    assert make_config(Options, {}, "it") == Options()
    made = make_config(
        Options, {"width": 3, "sizes": [5, 6], "inner": {"depth": 2}, "extra": {"a": {"b": 1}}}, "x"
    )
    assert made == Options(width=3, sizes=(5, 6), inner=Inner(2), extra={"a": {"b": 1}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, "unknown key 'model.widht': did you mean 'model.width'?"),
        ({"width": "many"}, "model.width"),
        ({"kind": "c"}, "model.kind"),
        ({"inner": {"dept": 2}}, "inner"),
        ({"width": 0}, "model: width is 0, expected 1 or more"),
    ],
)
def test_make_config_errors_are_one_line(options, message):
    with pytest.raises(ConfigError) as caught:
        make_config(Options, options, "model")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
