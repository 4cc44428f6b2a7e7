#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "bindings.h"
#include "cpu/isa.h"

namespace py = pybind11;

namespace ssm {
namespace {

// What Python passes for a (b, l, d) tensor: (address, stride_b, stride_l, stride_d).
using Ref3 = std::array<int64_t, 4>;

template <class T>
T* pointer(int64_t address) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

View3 view(const Ref3& ref) { return {pointer<char>(ref[0]), ref[1], ref[2], ref[3]}; }

// sizes: (batch, steps, channels, width, samples).  dtypes: codes of x and of the state.  views: x, y, state (b, s, d).
// parameters: addresses of weight, bias (or 0) and the counts (or 0).
void update(const std::array<int64_t, 5>& sizes, const std::array<int, 2>& dtypes, const std::array<Ref3, 3>& views,
            const std::array<int64_t, 3>& parameters, bool wide_counts, bool silu, int num_threads) {
  for (int64_t size : sizes)
    if (size < 0) throw std::invalid_argument("negative size");
  for (int dtype : dtypes)
    if (dtype < 0 || dtype > 3) throw std::invalid_argument("unknown dtype code");
  if (sizes[3] < 1 || sizes[3] > kMostTaps) throw std::invalid_argument("width must be 1 to 8");
  if (sizes[4] < sizes[3] - 1) throw std::invalid_argument("the state is shorter than the taps");
  ConvUpdate params;
  params.batch = sizes[0], params.steps = sizes[1], params.channels = sizes[2];
  params.width = sizes[3], params.samples = sizes[4];
  params.dtype = static_cast<DType>(dtypes[0]), params.state_dtype = static_cast<DType>(dtypes[1]);
  params.x = view(views[0]), params.y = view(views[1]), params.state = view(views[2]);
  params.weight = pointer<void>(parameters[0]), params.bias = pointer<void>(parameters[1]);
  params.counts = pointer<void>(parameters[2]), params.wide_counts = wide_counts;
  params.silu = silu, params.num_threads = num_threads;
  const KernelTable& kernels = active_kernels();
  py::gil_scoped_release release;
  kernels.causal_conv1d_update(params);
}

}  // namespace

void bind_causal_conv1d_update(py::module_& module) { module.def("causal_conv1d_update", &update); }

}  // namespace ssm
