"""torch.func over the operators: mapped calls, gradients per sample, nested transforms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import assert_close, examples
from torch import Tensor
from torch.func import grad, jacrev, vmap
from traced_calls import CALLS, OFFSETS, Call, batched_calls, every_call

from ssm_kernels import ssd_scan

SIZE = 3


def mapped_tensors(
    call: Call, names: frozenset[str]
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors with a mapped axis at a different place each, and the `in_dims` that say where."""
    tensors: dict[str, Tensor] = {}
    dims: dict[str, object] = {}
    for i, (name, x) in enumerate(call.tensors.items()):
        dims[name] = i % (x.dim() + 1) if name in names else None
        if name in names:
            entries = [x * (1 + 0.1 * k) for k in range(SIZE)]
            x = torch.stack(entries, dim=i % (x.dim() + 1))
        tensors[name] = x
    return tensors, dims


def entries(tensors: dict[str, Tensor], dims: dict[str, object]) -> list[dict[str, Tensor]]:
    return [
        {k: x if dims[k] is None else x.select(dims[k], i) for k, x in tensors.items()}
        for i in range(SIZE)
    ]


@every_call
@examples
@given(data=st.data())
def test_vmap_is_a_loop(call: Call, data: st.DataObject) -> None:
    """Whatever is mapped: activations fold into the batch, parameters do not."""
    names = data.draw(st.frozensets(st.sampled_from(sorted(call.tensors)), min_size=1))
    tensors, dims = mapped_tensors(call, names)
    got = vmap(lambda tensors: call(**tensors), in_dims=(dims,))(tensors)
    expected = [call(**one) for one in entries(tensors, dims)]
    for part, columns in zip(got, zip(*expected, strict=True), strict=True):
        if call.operator is ssd_scan:  # products of matrices: other places in memory, other bits
            assert_close(part, torch.stack(columns), 1e-12)
        else:
            assert torch.equal(part, torch.stack(columns))


@every_call
@examples
@given(data=st.data())
def test_gradients_per_sample(call: Call, data: st.DataObject) -> None:
    names = data.draw(st.frozensets(st.sampled_from(sorted(call.tensors)), min_size=1))
    tensors, dims = mapped_tensors(call, names)
    got = vmap(grad(call.loss), in_dims=(dims,))(tensors)
    for i, one in enumerate(entries(tensors, dims)):
        expected = replace(call, tensors=one).gradients(call.loss)
        for name, value in expected.items():
            assert_close(got[name][i], value, 1e-12, name)


@batched_calls
def test_gradient_of_a_mapped_call(call: Call) -> None:
    tensors, dims = mapped_tensors(call, call.batched)

    def total(tensors: dict[str, Tensor]) -> Tensor:
        return vmap(call.loss, in_dims=(dims,))(tensors).sum()

    def loop(tensors: dict[str, Tensor]) -> Tensor:
        return sum(call.loss(one) for one in entries(tensors, dims))

    whole = replace(call, tensors=tensors)
    expected = whole.gradients(loop)
    for name, value in grad(total)(tensors).items():
        assert_close(value, expected[name], 1e-12, name)
    for name, value in whole.gradients(total).items():  # autograd outside, vmap inside
        assert_close(value, expected[name], 1e-12, name)


def test_folding_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results above would be right with a loop, too; what is promised is one launch."""
    from ssm_kernels import native

    call, launches = CALLS["scan"], []
    launch = native.selective_scan_forward

    def counted(u: Tensor, *rest: object, **options: object) -> object:
        launches.append(u.shape[0])
        return launch(u, *rest, **options)

    monkeypatch.setattr(native, "selective_scan_forward", counted)
    for names, expected in ((call.batched, [2 * SIZE]), (frozenset({"u"}), [2 * SIZE])):
        tensors, dims = mapped_tensors(call, names)
        launches.clear()
        vmap(lambda tensors: call(**tensors), in_dims=(dims,))(tensors)
        assert launches == expected
    tensors, dims = mapped_tensors(call, call.batched | {"A"})
    launches.clear()
    vmap(lambda tensors: call(**tensors), in_dims=(dims,))(tensors)
    assert launches == [2] * SIZE


def test_nested_vmap() -> None:
    call = CALLS["conv"]
    x = torch.randn(2, 3, *call.tensors["x"].shape, dtype=torch.float64)
    weights = torch.randn(3, *call.tensors["weight"].shape, dtype=torch.float64)
    inner = vmap(lambda x, weight: call(x=x, weight=weight)[0])
    got = vmap(inner, in_dims=(0, None))(x, weights)
    for i in range(2):
        for j in range(3):
            assert torch.equal(got[i, j], call(x=x[i, j], weight=weights[j])[0])


def test_vmap_over_nothing() -> None:
    call = CALLS["scan"]
    y, state = vmap(lambda u: call(u=u))(call.tensors["u"].new_zeros(0, 2, 37, 12))
    assert y.shape == (0, 2, 37, 12)
    assert state.shape == (0, 2, 12, 5)
    y, _ = vmap(lambda A: call(A=A))(call.tensors["A"].new_zeros(0, 12, 5))
    assert y.shape == (0, 2, 37, 12)


def test_vmap_over_the_offsets() -> None:
    call = CALLS["packed conv"]
    offsets = torch.stack([OFFSETS, torch.tensor([0, 10, 20, 37])])
    got = vmap(lambda cu: replace(call, options={**call.options, "cu_seqlens": cu})()[0])(offsets)
    for i, cu in enumerate(offsets):
        y, _ = replace(call, options={**call.options, "cu_seqlens": cu})()
        assert torch.equal(got[i], y)


def test_jacobian() -> None:
    call = CALLS["scan"]
    z = call.tensors["z"][:, :2]
    short = {k: x[:, :2] for k, x in call.tensors.items() if k in call.batched - {"initial_state"}}
    jacobian = jacrev(lambda z: call(**{**short, "z": z})[0])(z)
    expected = torch.autograd.functional.jacobian(lambda z: call(**{**short, "z": z})[0], z)
    assert_close(jacobian, expected, 1e-13)
