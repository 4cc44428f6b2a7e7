"""The compiled kernels, seen from Python: tensors in, tensors out.

The functions here expect what the public operators have already checked (devices, dtypes, shapes);
they turn tensors into addresses and strides, allocate the results and call the extension module
`ssm_kernels._native`, which knows nothing of torch. If that module is missing, `AVAILABLE` is False
and `IMPORT_ERROR` says why.
"""

from __future__ import annotations

import torch  # first: the kernels run on the threads of the OpenMP runtime that torch loads
from torch import Tensor

IMPORT_ERROR: str | None = None
try:
    from ssm_kernels import _native
except ImportError as error:
    IMPORT_ERROR = str(error)
AVAILABLE: bool = IMPORT_ERROR is None

_DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def supports(A_is_complex: bool) -> bool:
    """Whether the compiled selective scan takes such an A."""
    return AVAILABLE and not A_is_complex


def build_info() -> dict[str, object]:
    """Compiler, instruction sets compiled, available and chosen, and whose threads run the kernels.

    Raises RuntimeError if SSM_KERNELS_ISA names a set that does not run here, ImportError if
    nothing was built.
    """
    if not AVAILABLE:
        raise ImportError(f"the compiled kernels are missing: {IMPORT_ERROR}")
    from importlib.metadata import version

    return {"version": version("ssm-kernels"), **_native.build_info()}


def isa() -> str:
    """The instruction set in use: baseline, avx2 or avx512."""
    return str(_native.isa())


def available_isas() -> list[str]:
    """The instruction sets that were compiled and run on this machine, slowest first."""
    return list(_native.available_isas())


def set_isa(name: str) -> None:
    """Use another instruction set from now on, for tests; RuntimeError if it does not run here."""
    _native.set_isa(name)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _view(tensor: Tensor | None) -> tuple[int, int, int, int]:
    """Address and strides of a (b, l, d) tensor."""
    if tensor is None:
        return (0, 0, 0, 0)
    stride_b, stride_l, stride_d = tensor.stride()
    return (tensor.data_ptr(), stride_b, stride_l, stride_d)


def _coefficient(tensor: Tensor) -> tuple[int, int, int, int, int, int]:
    """Address, groups and strides of B or C: (b, l, g, n), or constant and contiguous (d, n)."""
    if tensor.dim() == 2:
        return (tensor.data_ptr(), 0, 0, 0, 0, 0)
    stride_b, stride_l, stride_g, stride_n = tensor.stride()
    return (tensor.data_ptr(), tensor.shape[2], stride_b, stride_l, stride_g, stride_n)


class _Scan:
    """The inputs of one scan, contiguous where the kernels need it, and their C++ description."""

    def __init__(
        self,
        sequences: tuple[Tensor, Tensor, Tensor | None],
        parameters: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
        initial_state: Tensor | None,
        *,
        delta_softplus: bool,
        reverse: bool,
    ) -> None:
        u, delta, z = sequences
        A, B, C, D, delta_bias = parameters
        # Kept as attributes: the C++ side holds addresses only, so they must outlive the call.
        self.A = A.contiguous()
        self.B = B.contiguous() if B.dim() == 2 else B
        self.C = C.contiguous() if C.dim() == 2 else C
        self.D = None if D is None else D.contiguous()
        self.delta_bias = None if delta_bias is None else delta_bias.contiguous()
        self.initial_state = None if initial_state is None else initial_state.contiguous()
        self.batch, self.steps, self.channels = u.shape
        self.states = A.shape[1]
        inputs = _native.ScanInputs()
        sizes = (self.batch, self.steps, self.channels, self.states)
        inputs.set_sizes(*sizes, _DTYPE_CODES[u.dtype])
        inputs.set_sequences(
            _view(u), _view(delta), _view(z), _coefficient(self.B), _coefficient(self.C)
        )
        inputs.set_parameters(
            _address(self.A),
            _address(self.D),
            _address(self.delta_bias),
            _address(self.initial_state),
        )
        inputs.set_mode(delta_softplus, reverse, torch.get_num_threads())
        self.inputs = inputs

    def empty_state(self) -> Tensor:
        return self.A.new_empty((self.batch, self.channels, self.states))


def selective_scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    delta_softplus: bool,
    reverse: bool,
    save_for_backward: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The selective scan on the CPU: (y, final state, checkpoints for the backward pass or None).

    u, delta, z: (b, l, d) of one dtype, any strides. A: (d, n). B, C: (b, l, g, n) of that dtype,
    any strides, or (d, n). D, delta_bias: (d,). States: (b, d, n). A, constant B and C, D,
    delta_bias and the states have the compute type: float64 for float64 inputs, otherwise float32.
    `reverse` runs from the last step to the first. The checkpoints, (b, ceil(l / 32), n, d), hold
    the state before every 32nd step.
    """
    scan = _Scan(
        (u, delta, z),
        (A, B, C, D, delta_bias),
        initial_state,
        delta_softplus=delta_softplus,
        reverse=reverse,
    )
    y = u.new_empty(u.shape)
    final_state = scan.empty_state()
    checkpoints = None
    if save_for_backward:
        chunks = _native.scan_chunks(scan.steps)
        checkpoints = A.new_empty((scan.batch, chunks, scan.states, scan.channels))
    _native.selective_scan_forward(
        scan.inputs, _view(y), final_state.data_ptr(), _address(checkpoints)
    )
    return y, final_state, checkpoints


def selective_scan_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    checkpoints: Tensor,
    *,
    delta_softplus: bool,
    reverse: bool,
    need_initial_state_grad: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of (u, delta, A, B, C, D, z, delta_bias, initial_state), None for what is absent.

    Arguments as in selective_scan_forward; grad_y: (b, l, d) of u's dtype, any strides;
    grad_final_state: (b, d, n). Gradients have the dtype and shape of their tensor and are
    contiguous. The result is bit-equal for any number of threads. The gradient of the initial
    state is None unless asked for.
    """
    scan = _Scan(
        (u, delta, z),
        (A, B, C, D, delta_bias),
        initial_state,
        delta_softplus=delta_softplus,
        reverse=reverse,
    )
    if grad_final_state is not None:
        grad_final_state = grad_final_state.contiguous()
    grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
    grad_z = None if z is None else u.new_empty(u.shape)
    grad_A, grad_B, grad_C = A.new_empty(A.shape), B.new_empty(B.shape), C.new_empty(C.shape)
    grad_D = None if D is None else D.new_empty(D.shape)
    grad_bias = None if delta_bias is None else delta_bias.new_empty(delta_bias.shape)
    grad_initial = scan.empty_state() if need_initial_state_grad else None
    _native.selective_scan_backward(
        scan.inputs,
        _view(grad_y),
        _address(grad_final_state),
        checkpoints.data_ptr(),
        (_view(grad_u), _view(grad_delta), _view(grad_z)),
        (_coefficient(grad_B), _coefficient(grad_C)),
        (_address(grad_A), _address(grad_D), _address(grad_bias), _address(grad_initial)),
    )
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _conv_inputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
) -> _native.ConvInputs:
    """The C++ description of one convolution; the tensors must outlive it, all but x contiguous."""
    inputs = _native.ConvInputs()
    batch, steps, channels = x.shape
    inputs.set_sizes((batch, steps, channels, weight.shape[1], _DTYPE_CODES[x.dtype]))
    inputs.set_tensors(_view(x), weight.data_ptr(), _address(bias), _address(initial_state))
    inputs.set_mode(silu, reverse, torch.get_num_threads())
    return inputs


def causal_conv1d_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """The causal convolution on the CPU: (y, final state).

    x: (b, l, d), any strides. weight: (d, k), k from 1 to 8. bias: (d,). States: (b, d, k-1) in
    time order. All but x have the compute type: float64 for a float64 x, otherwise float32.
    """
    weight, bias = weight.contiguous(), _contiguous(bias)
    initial_state = _contiguous(initial_state)
    inputs = _conv_inputs(x, weight, bias, initial_state, silu=silu, reverse=reverse)
    y = x.new_empty(x.shape)
    final_state = weight.new_empty((x.shape[0], x.shape[2], weight.shape[1] - 1))
    _native.causal_conv1d_forward(inputs, _view(y), final_state.data_ptr())
    return y, final_state


def causal_conv1d_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of (x, weight, bias, initial_state), None for what is absent.

    Arguments as in causal_conv1d_forward; grad_y: (b, l, d) of x's dtype, any strides.
    Gradients are contiguous. The result is bit-equal for any number of threads.
    """
    weight, bias = weight.contiguous(), _contiguous(bias)
    initial_state = _contiguous(initial_state)
    inputs = _conv_inputs(x, weight, bias, initial_state, silu=silu, reverse=reverse)
    grad_final_state = _contiguous(grad_final_state)
    grad_x, grad_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    grad_bias = None if bias is None else bias.new_empty(bias.shape)
    grad_initial = None if initial_state is None else initial_state.new_empty(initial_state.shape)
    _native.causal_conv1d_backward(
        inputs,
        _view(grad_y),
        _address(grad_final_state),
        _view(grad_x),
        (grad_weight.data_ptr(), _address(grad_bias), _address(grad_initial)),
    )
    return grad_x, grad_weight, grad_bias, grad_initial
