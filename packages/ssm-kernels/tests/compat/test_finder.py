"""The modules: their paths, what they hold, and what they say about what they lack."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable
from importlib.metadata import EntryPoint, version

import pytest

from ssm_kernels.compat import catalogue, providers
from ssm_kernels.compat.errors import ProviderError

pytestmark = pytest.mark.usefixtures("shim")


def run(code: str) -> dict[str, object]:
    namespace: dict[str, object] = {}
    exec(code, namespace)  # an import statement raises otherwise than importlib.import_module
    return namespace


@pytest.mark.parametrize("path", catalogue.FUNCTIONS)
def test_every_module_holds_its_names(path: str) -> None:
    module = importlib.import_module(path)
    assert importlib.util.find_spec(path) is not None
    for names in catalogue.FUNCTIONS[path].values():
        for name in names:
            value = getattr(module, name)
            assert name in dir(module)
            assert run(f"from {path} import {name}")[name] is value


@pytest.mark.parametrize("path", catalogue.FUNCTIONS)
def test_functions_are_pickled_by_name(path: str) -> None:
    for names in catalogue.FUNCTIONS[path].values():
        for name in names:
            value = getattr(importlib.import_module(path), name)
            assert pickle.loads(pickle.dumps(value)) is value


def test_submodules_are_attributes_as_after_the_original_import() -> None:
    code = "import mamba_ssm\nfn = mamba_ssm.ops.selective_scan_interface.selective_scan_fn"
    assert run(code)["fn"] is run("from mamba_ssm import selective_scan_fn")["selective_scan_fn"]


def test_everything_at_once() -> None:
    found = run("from causal_conv1d.causal_conv1d_interface import *")
    assert {"causal_conv1d_fn", "causal_conv1d_update_ref"} <= set(found)


def test_the_version_says_what_it_is() -> None:
    found = run(
        "from mamba_ssm import __version__ as a\nfrom causal_conv1d import __version__ as b"
    )
    own = version("ssm-kernels")
    assert found["a"] == f"{catalogue.VERSIONS['mamba_ssm']}+ssm_kernels.{own}"
    assert found["b"] == f"{catalogue.VERSIONS['causal_conv1d']}+ssm_kernels.{own}"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("from mamba_ssm.ops.triton.ssd_combined import absent", ImportError),
        ("from mamba_ssm import absent", ImportError),
        ("import mamba_ssm.absent", ModuleNotFoundError),
        ("import mamba_ssm\nmamba_ssm.absent", AttributeError),
        ("from selective_scan_cuda import absent", ImportError),
    ],
)
def test_what_is_absent_raises_with_the_list(code: str, error: type[Exception]) -> None:
    path = code.split("\n")[0].split()[1].removesuffix(".absent")
    with pytest.raises(error) as raised:
        run(code)
    assert raised.type is error
    message = str(raised.value)
    assert f"has no {path}.absent" in message
    names = [name for found in catalogue.FUNCTIONS[path].values() for name in found]
    assert all(name in message for name in names)


def test_looking_for_an_attribute_is_no_error() -> None:
    module = importlib.import_module("mamba_ssm")
    assert not hasattr(module, "absent")
    assert getattr(module, "absent", 3) == 3


def test_classes_of_other_packages_name_them(
    provide: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(name: str) -> str:
        if name == "ssm-core":
            raise catalogue.PackageNotFoundError(name)
        return version(name)

    provide()
    monkeypatch.setattr(catalogue, "version", not_installed)
    code = "from mamba_ssm import Mamba"
    with pytest.raises(ImportError, match=r"mamba_ssm\.Mamba needs ssm-core: pip install ssm-core"):
        run(code)
    monkeypatch.setattr(catalogue, "version", lambda name: "0.0.1")
    with pytest.raises(ImportError, match=r"the installed 0\.0\.1 does not provide it"):
        run(code)


def test_added_names_are_found(provide: Callable[..., None]) -> None:
    provide({"mamba_ssm": {"Mamba": int}, "mamba_ssm.new.deep": {"Thing": str}})
    assert run("from mamba_ssm import Mamba")["Mamba"] is int
    assert run("from mamba_ssm.new.deep import Thing")["Thing"] is str
    assert run("from mamba_ssm import *")["Mamba"] is int
    assert "Mamba" in dir(importlib.import_module("mamba_ssm"))


def test_functions_are_there_without_asking_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: str) -> list[EntryPoint]:
        raise ProviderError("asked")

    providers.provided.cache_clear()
    monkeypatch.setattr(providers, "entry_points", refuse)
    assert run("import mamba_ssm.ops.triton.layer_norm, selective_scan_cuda_core")
    with pytest.raises(ProviderError):
        run("from mamba_ssm import Mamba")
