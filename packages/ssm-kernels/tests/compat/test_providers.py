"""Entry points that add names, and those that cannot."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from ssm_kernels.compat import providers
from ssm_kernels.compat.errors import ProviderError


def test_tables_are_merged(provide: Callable[..., None]) -> None:
    provide({"mamba_ssm": {"Mamba": int}}, {"mamba_ssm": {"Mamba2": str}, "mamba_ssm.x": {"Y": 1}})
    assert providers.provided() == {
        "mamba_ssm": {"Mamba": int, "Mamba2": str},
        "mamba_ssm.x": {"Y": 1},
    }


def test_the_same_object_twice_is_one(provide: Callable[..., None]) -> None:
    provide({"mamba_ssm": {"Mamba": int}}, {"mamba_ssm": {"Mamba": int}})
    assert providers.provided() == {"mamba_ssm": {"Mamba": int}}


def test_two_objects_of_one_name_are_an_error(provide: Callable[..., None]) -> None:
    provide({"mamba_ssm": {"Mamba": int}}, {"mamba_ssm": {"Mamba": str}})
    with pytest.raises(ProviderError, match=r"mamba_ssm\.Mamba.*both .*plugin0.* and .*plugin1"):
        providers.provided()


def test_our_own_names_are_taken(provide: Callable[..., None]) -> None:
    provide({"mamba_ssm": {"selective_scan_fn": int}})
    with pytest.raises(ProviderError, match=r"both ssm-kernels and .*plugin0"):
        providers.provided()


def test_modules_of_other_packages_are_an_error(provide: Callable[..., None]) -> None:
    provide({"numpy": {"zeros": int}})
    with pytest.raises(ProviderError, match=r"plugin0.* adds the module numpy"):
        providers.provided()


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module_at_all:compat", providers.GROUP)
    monkeypatch.setattr(providers, "entry_points", lambda group: [broken])
    providers.provided.cache_clear()
    with pytest.raises(ProviderError, match=r"broken = no_such_module_at_all:compat.* cannot be"):
        providers.provided()
