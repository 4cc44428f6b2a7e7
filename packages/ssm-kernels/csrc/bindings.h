// Each operator registers its functions with the extension module here.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <stdexcept>

#include "kernels.h"
#include "params.h"

namespace ssm {

// What Python passes for a (b, l, d) tensor: (address, stride_b, stride_l, stride_d, dtype code); address 0 if absent.
using Ref3 = std::array<int64_t, 5>;

template <class T>
T* pointer(int64_t address) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

inline DType dtype_from(int64_t code) {
  if (code < 0 || code > 3) throw std::invalid_argument("unknown dtype code");
  return static_cast<DType>(code);
}

inline View3 view(const Ref3& ref) {
  return {pointer<char>(ref[0]), ref[1], ref[2], ref[3], dtype_from(ref[4])};
}

// Where a call runs.  Bound with keep_alive: the call holds a borrowed reference to its allocator.
template <class Inputs>
void set_cuda(Inputs& in, const CudaCall& call) {
  in.cuda = call;
}

// Lets other Python threads run while a kernel does, where that is possible.
class WithoutGil {
 public:
  explicit WithoutGil(const KernelTable& kernels) {
    if (!kernels.keep_gil) release_.emplace();
  }

 private:
  std::optional<pybind11::gil_scoped_release> release_;
};

void bind_operators(pybind11::module_& module);  // all but the last

void bind_selective_scan(pybind11::module_& module);
void bind_causal_conv1d(pybind11::module_& module);
void bind_causal_conv1d_update(pybind11::module_& module);
void bind_selective_state_update(pybind11::module_& module);
void bind_diagonal_scan(pybind11::module_& module);
void bind_ssd_scan(pybind11::module_& module);
void bind_linear(pybind11::module_& module);
void bind_log_vandermonde(pybind11::module_& module);
void bind_cauchy(pybind11::module_& module);
void bind_mamba_directions(pybind11::module_& module);
void bind_rms_norm(pybind11::module_& module);
void bind_machine_limits(pybind11::module_& module);

}  // namespace ssm
