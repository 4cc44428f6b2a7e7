# The extension module csrc/bindings.cpp. Addresses are integers, 0 for an absent tensor; strides
# count elements. _Ref3: address, stride_b, stride_l, stride_d, dtype code. _RefBC: address, groups,
# stride_b, stride_l, stride_g, stride_n.

_Ref3 = tuple[int, int, int, int, int]
_RefBC = tuple[int, int, int, int, int, int]

def build_info() -> dict[str, object]: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def force_own_pool(forced: bool) -> None: ...
def scan_chunks(inputs: ScanInputs) -> int: ...
def machine_limits(num_threads: int, array_bytes: int, seconds: float) -> dict[str, float]: ...

class ScanInputs:
    def set_sizes(
        self,
        batch: int,
        steps: int,
        channels: int,
        states: int,
        dtype: int,
        complex_A: bool,
    ) -> None: ...
    def set_sequences(self, u: _Ref3, delta: _Ref3, z: _Ref3, B: _RefBC, C: _RefBC) -> None: ...
    def set_parameters(self, A: int, D: int, delta_bias: int, initial_state: int) -> None: ...
    def set_packing(self, offsets: int, sequences: int) -> None: ...
    def set_mode(
        self, delta_softplus: bool, reverse: bool, columns: int, num_threads: int
    ) -> None: ...

def selective_scan_forward(
    inputs: ScanInputs, y: _Ref3, add_to_y: bool, final_state: int, checkpoints: int
) -> None: ...
def selective_scan_backward(
    inputs: ScanInputs,
    grad_y: _Ref3,
    grad_final_state: int,
    checkpoints: int,
    grad_sequences: tuple[_Ref3, _Ref3, _Ref3],
    add: tuple[bool, bool],
    grad_coefficients: tuple[_RefBC, _RefBC],
    grads: tuple[int, int, int, int],
) -> None: ...

class ConvInputs:
    def set_sizes(self, sizes: tuple[int, int, int, int, int]) -> None: ...
    def set_tensors(self, x: _Ref3, weight: int, bias: int, initial_state: int) -> None: ...
    def set_packing(self, offsets: int, sequences: int) -> None: ...
    def set_mode(self, silu: bool, reverse: bool, num_threads: int) -> None: ...

def causal_conv1d_forward(inputs: ConvInputs, y: _Ref3, final_state: int) -> None: ...
def causal_conv1d_backward(
    inputs: ConvInputs,
    grad_y: _Ref3,
    grad_final_state: int,
    grad_x: _Ref3,
    grads: tuple[int, int, int],
) -> None: ...
def causal_conv1d_update(
    sizes: tuple[int, int, int, int, int],
    views: tuple[_Ref3, _Ref3, _Ref3],
    parameters: tuple[int, int, int],
    wide_counts: bool,
    silu: bool,
    num_threads: int,
) -> None: ...
def selective_state_update(
    sizes: tuple[int, int, int, int, int],
    has_heads: bool,
    tensors: list[tuple[int, ...]],
    flags: tuple[bool, bool],
    num_threads: int,
) -> None: ...
