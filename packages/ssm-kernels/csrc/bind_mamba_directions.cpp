#include "bindings.h"
#include "kernels.h"
#include "mamba_directions_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (batch, steps, channels, states, width, rank, dtype code).
MambaDirections with_sizes(const std::array<int64_t, 7>& sizes, size_t directions) {
  for (int i = 0; i < 6; ++i)
    if (sizes[i] < 0) throw std::invalid_argument("negative size");
  if (sizes[4] < 1 || sizes[4] > kMostTaps) throw std::invalid_argument("width must be 1 to 8");
  if (directions < 1 || directions > kMostDirections) throw std::invalid_argument("1 to 4 directions");
  MambaDirections in;
  in.batch = sizes[0], in.steps = sizes[1], in.channels = sizes[2], in.states = sizes[3];
  in.width = sizes[4], in.rank = sizes[5], in.dtype = dtype_from(sizes[6]), in.count = static_cast<int64_t>(directions);
  if (size_of(in.dtype) < 4) throw std::invalid_argument("numbers must have 32 or 64 bits");
  return in;
}

// sequences: x, z and y.  directions: addresses of conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log and D, then
// whether time runs backwards.
void mamba_directions(const std::array<int64_t, 7>& sizes, const std::array<Ref3, 3>& sequences,
                      const std::vector<std::array<int64_t, 8>>& directions, double factor, int num_threads) {
  MambaDirections in = with_sizes(sizes, directions.size());
  in.x = view(sequences[0]), in.z = view(sequences[1]), in.y = view(sequences[2]);
  for (size_t k = 0; k < directions.size(); ++k) {
    const auto& given = directions[k];
    in.directions[k] = {pointer<void>(given[0]), pointer<void>(given[1]), pointer<void>(given[2]), pointer<void>(given[3]),
                        pointer<void>(given[4]), pointer<void>(given[5]), pointer<void>(given[6]), given[7] != 0};
  }
  in.factor = factor, in.num_threads = num_threads;
  const KernelTable& kernels = active_kernels();
  if (kernels.mamba_directions == nullptr) throw std::invalid_argument("of the CPU alone");
  const WithoutGil without_gil(kernels);
  kernels.mamba_directions(in);
}

}  // namespace

void bind_mamba_directions(py::module_& module) { module.def("mamba_directions", &mamba_directions); }

}  // namespace ssm
