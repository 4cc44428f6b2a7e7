"""log_vandermonde and cauchy: checks, and every way of a call through PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from s4_kernel_cases import poles, randn
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from traced_calls import Watch

from ssm_kernels import (
    ArgumentError,
    BackendError,
    DeviceError,
    DTypeError,
    ShapeError,
    cauchy,
    log_vandermonde,
    native,
)

OPS = torch.ops.ssm_kernels


def powers(v: Tensor, x: Tensor) -> Tensor:
    return log_vandermonde(v, x, 20, backend="cpu")


def fractions(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return torch.view_as_real(cauchy(v, z, w, backend="cpu"))


def arguments(f: Callable[..., Tensor], *leading: int) -> list[Tensor]:
    torch.manual_seed(3)
    v, x = randn(*leading, 3, 5, dtype=torch.complex128), poles(3, 5)
    made = [v, x] if f is powers else [v, randn(9, dtype=torch.complex128) + 3, x]
    return [tensor.requires_grad_() for tensor in made]


def results(f: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """A value that is not linear in the result, and its gradients."""
    loss = f(*tensors).sin().sum()
    return [loss.detach(), *torch.autograd.grad(loss, tensors)]


both = pytest.mark.parametrize("f", [powers, fractions])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@both
def test_dispatcher_and_plain_call_give_the_same_bits(f: Callable[..., Tensor]) -> None:
    tensors = arguments(f, 2)
    expected = results(f, *tensors)
    with Watch() as watch:
        got = results(f, *tensors)
    name = "log_vandermonde" if f is powers else "cauchy"
    assert watch.seen == {f"{name}_forward", f"{name}_backward"}
    assert all(map(torch.equal, got, expected))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
def test_opcheck() -> None:
    """Schema, fake kernel, autograd and tracing with dynamic shapes, forward and backward."""
    v, x = arguments(powers, 2)
    checks = [
        (OPS.log_vandermonde_forward, (v, x, 20, True)),
        (
            OPS.log_vandermonde_backward,
            (torch.randn(2, 3, 20).double(), v.detach(), x.detach(), True, False),
        ),
    ]
    v, z, w = arguments(fractions, 2)
    plain = [tensor.detach() for tensor in (v, z, w)]
    grad_R = randn(2, 3, 9, dtype=torch.complex128)
    checks += [
        (OPS.cauchy_forward, (v, z, w, True)),
        (OPS.cauchy_backward, (grad_R, *plain, True, False, True)),
    ]
    for operator, made in checks:
        passed = torch.library.opcheck(operator.default, made)
        assert set(passed.values()) == {"SUCCESS"}


@both
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_one_graph_with_the_same_bits(f: Callable[..., Tensor], leading: tuple[int, ...]) -> None:
    tensors = arguments(f, *leading)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(f, fullgraph=True, backend=counter)
    assert all(map(torch.equal, results(compiled, *tensors), results(f, *tensors)))
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_any_length_in_one_graph() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(log_vandermonde, fullgraph=True, backend=counter, dynamic=True)
    v, x = arguments(powers)
    for l in (20, 33, 7):
        got, expected = compiled(v, x, l), log_vandermonde(v, x, l, backend="cpu")
        assert torch.equal(got, expected)
    assert counter.frame_count == 1


@both
def test_cuda_tensors_without_data(
    f: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exporters see of a program for a GPU, on a machine that has none."""
    monkeypatch.setattr(native, "cuda_problem", lambda device: None)
    tensors = arguments(f, 2, 4)
    expected = f(*tensors).shape
    with FakeTensorMode():
        fake = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in tensors]
        got = log_vandermonde(*fake, 20) if f is powers else torch.view_as_real(cauchy(*fake))
    assert got.device.type == "cuda"
    assert got.shape == expected
    assert got.dtype is torch.float64


@both
def test_vmap_over_any_argument(f: Callable[..., Tensor]) -> None:
    tensors = [x.detach() for x in arguments(f, 2)]
    for position, tensor in enumerate(tensors):
        many = torch.stack([tensor, 2 * tensor, tensor.conj()])
        dims = tuple(0 if i == position else None for i in range(len(tensors)))
        given = [many if i == position else x for i, x in enumerate(tensors)]
        expected = torch.stack(
            [f(*(many[j] if i == position else x for i, x in enumerate(tensors))) for j in range(3)]
        )
        assert torch.equal(torch.vmap(f, dims)(*given), expected)

        def loss(*arguments: Tensor) -> Tensor:
            return f(*arguments).square().sum()

        gradients = torch.vmap(torch.func.grad(loss, position), dims)(*given)
        for j in range(3):
            one = [many[j] if i == position else x for i, x in enumerate(tensors)]
            assert torch.equal(gradients[j], torch.func.grad(loss, position)(*one))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what jvp loads
@both
def test_second_and_forward_derivatives_are_refused(f: Callable[..., Tensor]) -> None:
    tensors = arguments(f, 2)
    (gradient,) = torch.autograd.grad(f(*tensors).sin().sum(), tensors[0], create_graph=True)
    with pytest.raises(BackendError, match="cannot be differentiated again"):
        gradient.abs().sum().backward()
    plain = tuple(x.detach() for x in tensors)
    with pytest.raises(BackendError, match="forward-mode"):
        torch.func.jvp(f, plain, plain)


@both
def test_narrow_and_wide_types_together(f: Callable[..., Tensor]) -> None:
    """The narrower arguments are converted; gradients return in their own type."""
    tensors = arguments(f, 2)
    for position in range(len(tensors)):
        mixed = [
            x.detach().to(torch.complex64 if i == position else x.dtype).requires_grad_()
            for i, x in enumerate(tensors)
        ]
        result = f(*mixed)
        assert result.dtype is torch.float64
        for x, gradient in zip(mixed, torch.autograd.grad(result.sum(), mixed), strict=True):
            assert gradient.dtype is x.dtype


ERRORS = [
    ({"v": torch.zeros(2, 3, 4)}, DTypeError, "v has dtype torch.float32, expected complex64 or"),
    ({"v": 1}, DTypeError, "v is a int, expected a torch.Tensor"),
    (
        {"v": torch.zeros(2, 3, 5) + 0j},
        ShapeError,
        "v has shape (2, 3, 5), expected (..., h, n) = (..., 3, 4) like {pole}",
    ),
    (
        {"v": torch.zeros(4) + 0j},
        ShapeError,
        "v has shape (4,), expected (..., h, n) = (..., 3, 4) like {pole}",
    ),
    ({"pole": torch.zeros(3) + 0j}, ShapeError, "{pole} has shape (3,), expected 2 axes (h, n)"),
    (
        {"pole": torch.zeros(3, 4, device="meta") + 0j},
        DeviceError,
        "{pole} is on meta, expected cpu like v",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_checks(wrong: dict[str, object], error: type[Exception], message: str) -> None:
    made: dict[str, object] = {"v": torch.zeros(2, 3, 4) + 0j, "pole": torch.zeros(3, 4) + 0j}
    made |= wrong
    for name, pole in (("log_vandermonde", "x"), ("cauchy", "w")):
        expected = f"{name}: " + message.format(pole=pole)
        nodes = () if pole == "x" else (torch.zeros(7) + 0j,)
        operator, last = (log_vandermonde, (5,)) if pole == "x" else (cauchy, ())
        with pytest.raises(error) as caught:
            operator(made["v"], *nodes, made["pole"], *last)  # type: ignore[operator]
        assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("l", [-1, 2.5, True, None])
def test_wrong_lengths(l: object) -> None:
    x = torch.zeros(3, 4) + 0j
    with pytest.raises(ArgumentError, match=r"^log_vandermonde: l is .*, expected"):
        log_vandermonde(x, x, l)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (2, 7), (3, 7, 1)])
def test_wrong_nodes(shape: tuple[int, ...]) -> None:
    w = torch.zeros(3, 4) + 0j
    with pytest.raises(ShapeError, match=r"^cauchy: z has shape .*expected \(k,\) or \(h, k\) ="):
        cauchy(w, torch.zeros(shape) + 0j, w)


def test_unknown_backend() -> None:
    w = torch.zeros(3, 4) + 0j
    with pytest.raises(BackendError, match="log_vandermonde: backend is 'fast'"):
        log_vandermonde(w, w, 3, backend="fast")
    with pytest.raises(BackendError, match="cauchy: backend 'cuda' cannot run"):
        cauchy(w, w[0], w, backend="cuda")
