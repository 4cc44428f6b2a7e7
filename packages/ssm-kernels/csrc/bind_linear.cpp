#include "bindings.h"
#include "kernels.h"
#include "linear_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (rows, inner, columns, dtype code).  addresses: of x, weight, bias (or 0) and y.
void linear(const std::array<int64_t, 4>& sizes, const std::array<int64_t, 4>& addresses, int num_threads) {
  Linear params;
  params.rows = sizes[0], params.inner = sizes[1], params.columns = sizes[2], params.dtype = dtype_from(sizes[3]);
  if (sizes[0] < 0 || sizes[1] < 0 || sizes[2] < 0) throw std::invalid_argument("negative size");
  if (size_of(params.dtype) < 4) throw std::invalid_argument("numbers must have 32 or 64 bits");
  params.x = pointer<void>(addresses[0]), params.weight = pointer<void>(addresses[1]);
  params.bias = pointer<void>(addresses[2]), params.y = pointer<void>(addresses[3]);
  params.num_threads = num_threads;
  const KernelTable& kernels = active_kernels();
  if (kernels.linear == nullptr) throw std::invalid_argument("of the CPU alone");
  const WithoutGil without_gil(kernels);
  kernels.linear(params);
}

}  // namespace

void bind_linear(py::module_& module) { module.def("linear", &linear); }

}  // namespace ssm
