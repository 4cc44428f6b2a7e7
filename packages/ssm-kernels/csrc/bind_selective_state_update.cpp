#include <vector>

#include "bindings.h"
#include "kernels.h"

namespace py = pybind11;

namespace ssm {
namespace {

// What Python passes for a tensor: (address, dtype code, strides...); address 0 for an absent one.
using Ref = std::vector<int64_t>;

// The axes of a tensor; without heads, h and p are one axis d of heads * channels entries.
struct Axes {
  bool b, n, heads;
  int64_t channels;
};

UpdateView update_view(const Ref& ref, const Axes& axes) {
  if (ref.size() < 2) throw std::invalid_argument("not a tensor");
  UpdateView v;
  v.data = pointer<char>(ref[0]);
  v.dtype = dtype_from(ref[1]);
  if (v.data == nullptr) return v;
  if (ref.size() != size_t(3 + axes.b + axes.n + axes.heads)) throw std::invalid_argument("wrong number of axes");
  const int64_t* stride = ref.data() + 2;
  if (axes.b) v.stride_b = *stride++;
  if (axes.heads) v.stride_h = *stride++;
  v.stride_p = *stride++;
  if (!axes.heads) v.stride_h = axes.channels * v.stride_p;
  if (axes.n) v.stride_n = *stride++;
  return v;
}

// B or C: (b, n) or (b, g, n).
UpdateView coefficient(const Ref& ref) {
  const bool grouped = ref.size() == 5;
  UpdateView v = update_view(ref, {true, grouped, false, 0});
  return {v.data, v.dtype, v.stride_b, grouped ? v.stride_p : 0, 0, grouped ? v.stride_n : v.stride_p};
}

// sizes: (b, h, p, n, groups), or (b, d, 1, n, groups) without heads.  tensors: state, x, dt, A, B, C, D, z, dt_bias, y.
// flags: complex A, softplus.
void update(const std::array<int64_t, 5>& sizes, bool has_heads, const std::array<Ref, 10>& tensors,
            const std::array<bool, 2>& flags, int num_threads, const CudaCall& cuda) {
  for (int64_t size : sizes)
    if (size < 0) throw std::invalid_argument("negative size");
  StateUpdate params;
  params.batch = sizes[0], params.states = sizes[3], params.groups = sizes[4];
  if (params.groups == 0 || sizes[1] % params.groups != 0)
    throw std::invalid_argument("the number of heads must be a multiple of the number of groups");
  params.heads = has_heads ? sizes[1] : params.groups;
  params.channels = has_heads ? sizes[2] : sizes[1] / params.groups;
  params.complex_A = flags[0], params.dt_softplus = flags[1], params.num_threads = num_threads, params.cuda = cuda;

  const auto at = [&](int i, bool b, bool n) { return update_view(tensors[i], {b, n, has_heads, params.channels}); };
  params.state = at(0, true, true), params.x = at(1, true, false), params.dt = at(2, true, false);
  params.A = at(3, false, true), params.B = coefficient(tensors[4]), params.C = coefficient(tensors[5]);
  params.D = at(6, false, false), params.z = at(7, true, false), params.dt_bias = at(8, false, false);
  params.y = at(9, true, false);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  (params.complex_A ? kernels.selective_state_update_complex : kernels.selective_state_update)(params);
}

}  // namespace

void bind_selective_state_update(py::module_& module) { module.def("selective_state_update", &update); }

}  // namespace ssm
