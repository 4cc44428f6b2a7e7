"""Values and gradients computed by the official implementation (state-spaces/mamba), float32.

The files hold its layout, (b, d, l), with complex numbers as pairs of real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import BACKENDS
from safetensors import safe_open
from torch import Tensor

from ssm_kernels import selective_scan

FILES = sorted((Path(__file__).parent / "data").glob("scan_0*.safetensors"))
TIME_LAST = ("u", "delta", "z", "B", "C")  # of three or more axes


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def to_call_layout(name: str, x: Tensor, is_complex: bool, contiguous: bool) -> Tensor:
    """(b, d, l) -> (b, l, d), (b, n, l) -> (b, l, n), (b, g, n, l) -> (b, l, g, n)."""
    if is_complex and name in ("A", "last_state"):
        return torch.view_as_complex(x)
    if name not in TIME_LAST or x.dim() < 3:
        return x
    if is_complex and name in ("B", "C"):  # the last axis alternates real and imaginary parts
        x = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    x = x.movedim(-1, 1)
    return x.contiguous() if contiguous else x


def test_every_golden_is_there() -> None:
    assert [path.stem[8:] for path in FILES] == [
        "full",
        "plain",
        "groups",
        "constBC",
        "noz",
        "complex",
    ]


@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "transposed"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden(backend: str, path: Path, contiguous: bool) -> None:
    tensors, metadata = load(path)
    is_complex = path.stem.endswith("complex")

    def section(prefix: str) -> dict[str, Tensor]:
        found = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        return {k: to_call_layout(k, v, is_complex, contiguous) for k, v in found.items()}

    inputs = {k: v.requires_grad_() for k, v in section("in.").items()}
    y, state = selective_scan(
        **inputs,
        delta_softplus=metadata["delta_softplus"] == "true",
        return_final_state=True,
        backend=backend,
    )
    gradients = torch.autograd.grad(y, list(inputs.values()), tensors["gout"].transpose(1, 2))

    expected = {"y": tensors["out.y"].transpose(1, 2), **section("grad.")}
    expected["last_state"] = section("out.")["last_state"]
    for name, got in {
        "y": y,
        "last_state": state,
        **dict(zip(inputs, gradients, strict=True)),
    }.items():
        error = (got - expected[name]).abs().max() / expected[name].abs().max()
        assert error < 1e-5, f"{name}: {error:.1e}"
