"""The scan in the original's layout against the equations, and against tensors of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors import safe_open
from shim_cases import ScanCase, close, gradients, leaves, scan_cases, slow_scan

from ssm_kernels import ShapeError
from ssm_kernels.compat.selective_scan import (
    ScanTensors,
    SelectiveScanFn,
    selective_scan_fn,
    selective_scan_ref,
)

GOLDENS = sorted((Path(__file__).parents[1] / "data").glob("scan_0*.safetensors"))
PLAIN = ScanCase(2, 4, 9, 3, (1, 2), False, (True, True, True), True, False, 3)


@given(scan_cases())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
def test_values_and_gradients(function: Any, case: ScanCase) -> None:
    inputs, again = leaves(case.tensors()), leaves(case.tensors())
    y, state = function(*inputs, case.delta_softplus, return_last_state=True)
    expected, last = slow_scan(ScanTensors(*again), case.delta_softplus)
    close(y, expected)
    close(state, last)
    cotangent = torch.randn_like(expected)
    for got, right in zip(
        gradients(y, inputs, cotangent), gradients(expected, again, cotangent), strict=True
    ):
        close(got, right, 1e-8)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_tensors_of_the_original(path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        softplus = file.metadata()["delta_softplus"] == "true"
    inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
    expected = {key: value for key, value in tensors.items() if key.startswith(("out", "grad"))}
    if path.stem.endswith("complex"):
        inputs["A"] = torch.view_as_complex(inputs["A"])
        for key in ("out.last_state", "grad.A"):
            expected[key] = torch.view_as_complex(expected[key])
    for value in inputs.values():
        value.requires_grad_()
    y, state = selective_scan_fn(**inputs, delta_softplus=softplus, return_last_state=True)
    assert state.dtype is expected["out.last_state"].dtype
    found = {"out.y": y, "out.last_state": state}
    grads = torch.autograd.grad(y, list(inputs.values()), tensors["gout"])
    found |= {f"grad.{name}": grad for name, grad in zip(inputs, grads, strict=True)}
    assert found.keys() == expected.keys()
    for key, value in found.items():
        error = (value - expected[key]).abs().max() / expected[key].abs().max()
        assert error < 1e-5, f"{key}: {error:.1e}"
    assert len(GOLDENS) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_as_under_autocast(dtype: torch.dtype) -> None:
    """Activations in half precision, parameters in float32."""
    tensors = PLAIN.tensors(dtype)
    y, state = selective_scan_fn(*tensors, True, True)
    assert (y.dtype, state.dtype, tensors.A.dtype) == (dtype, torch.float32, torch.float32)
    wide = ScanTensors(*(None if x is None else x.double() for x in tensors))
    close(y, slow_scan(wide, True)[0], 2e-2)


def test_the_result_can_be_viewed() -> None:
    case = ScanCase(2, 4, 6, 3, (1, 1), False, (True, False, False), True, True, 0)
    y = selective_scan_fn(*case.tensors())
    assert y.view(2, 2, 2, 2, 3).shape == (2, 2, 2, 2, 3)


def test_apply_is_the_function() -> None:
    tensors = PLAIN.tensors()
    assert torch.equal(SelectiveScanFn.apply(*tensors), selective_scan_fn(*tensors))


def test_a_wrong_shape_is_explained() -> None:
    tensors = PLAIN.tensors()
    B = tensors.B.transpose(-1, -2)
    with pytest.raises(ShapeError, match=r"B has shape .*the steps l come second") as raised:
        selective_scan_fn(*tensors._replace(B=B))
    assert "\n" not in str(raised.value)
