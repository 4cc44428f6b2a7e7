#include "bindings.h"
#include "kernels.h"
#include "rms_norm_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (rows, groups, channels of a group, distance of the gate's rows, dtype code).  addresses: of x, weight, y and the
// gate (or 0).
void rms_norm(const std::array<int64_t, 5>& sizes, const std::array<int64_t, 4>& addresses, double eps,
              int num_threads) {
  RmsNorm params;
  params.rows = sizes[0], params.groups = sizes[1], params.channels = sizes[2], params.gate_stride = sizes[3];
  params.dtype = dtype_from(sizes[4]);
  if (sizes[0] < 0 || sizes[1] < 1 || sizes[2] < 0) throw std::invalid_argument("negative size, or no group");
  if (size_of(params.dtype) < 4) throw std::invalid_argument("numbers must have 32 or 64 bits");
  params.x = pointer<void>(addresses[0]), params.weight = pointer<void>(addresses[1]);
  params.y = pointer<void>(addresses[2]), params.gate = pointer<void>(addresses[3]);
  params.eps = eps, params.num_threads = num_threads;
  const KernelTable& kernels = active_kernels();
  if (kernels.rms_norm == nullptr) throw std::invalid_argument("of the CPU alone");
  const WithoutGil without_gil(kernels);
  kernels.rms_norm(params);
}

}  // namespace

void bind_rms_norm(py::module_& module) { module.def("rms_norm", &rms_norm); }

}  // namespace ssm
