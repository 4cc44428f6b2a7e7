#include "bindings.h"
#include "causal_conv1d_update_params.h"
#include "kernels.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (batch, steps, channels, width, samples).  views: x, y, state (b, s, d).  parameters: addresses of weight, bias (or 0)
// and the counts (or 0).
void update(const std::array<int64_t, 5>& sizes, const std::array<Ref3, 3>& views,
            const std::array<int64_t, 3>& parameters, bool wide_counts, bool silu, int num_threads,
            const CudaCall& cuda) {
  for (int64_t size : sizes)
    if (size < 0) throw std::invalid_argument("negative size");
  if (sizes[3] < 1 || sizes[3] > kMostTaps) throw std::invalid_argument("width must be 1 to 8");
  if (sizes[4] < sizes[3] - 1) throw std::invalid_argument("the state is shorter than the taps");
  ConvUpdate params;
  params.batch = sizes[0], params.steps = sizes[1], params.channels = sizes[2];
  params.width = sizes[3], params.samples = sizes[4];
  params.x = view(views[0]), params.y = view(views[1]), params.state = view(views[2]);
  params.weight = pointer<void>(parameters[0]), params.bias = pointer<void>(parameters[1]);
  params.counts = pointer<void>(parameters[2]), params.wide_counts = wide_counts;
  params.silu = silu, params.num_threads = num_threads, params.cuda = cuda;
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.causal_conv1d_update(params);
}

}  // namespace

void bind_causal_conv1d_update(py::module_& module) { 
  module.def("causal_conv1d_update", &update);
 }

}  // namespace ssm
