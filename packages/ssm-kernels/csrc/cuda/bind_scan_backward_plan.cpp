#include <pybind11/stl.h>

#include "cuda/bind_plans.h"
#include "cuda/selective_scan_backward_plan.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

// groups: of B and of C.  flags: complex A, double, gated, strides too long, sums of u and of z over directions.
py::dict plan(int64_t directions, int64_t sequences, const std::array<int64_t, 4>& sizes,
              const std::array<int64_t, 2>& groups, const std::array<bool, 6>& flags, int64_t most_shared_bytes) {
  ScanBackwardShape shape;
  shape.directions = directions, shape.sequences = sequences;
  shape.batch = sizes[0], shape.steps = sizes[1], shape.channels = sizes[2], shape.states = sizes[3];
  shape.groups_B = groups[0], shape.groups_C = groups[1];
  shape.complex_A = flags[0], shape.wide = flags[1], shape.gated = flags[2], shape.short_strides = !flags[3];
  shape.most_shared_bytes = most_shared_bytes;
  shape.sum_u = flags[4], shape.sum_z = flags[5];
  const ScanBackwardPlan plan = plan_scan_backward(shape);
  std::vector<std::pair<int64_t, int64_t>> slabs;
  for (int64_t slab = 0; slab < plan.slabs.blocks; ++slab)
    slabs.emplace_back(plan.slabs.first(slab), plan.slabs.count(slab));
  py::dict made;
  made["lanes"] = plan.kernel == ScanBackwardKernel::lanes ? plan.lanes : 0;
  made["warps"] = plan.warps, made["blocks"] = plan.blocks, made["shared_bytes"] = plan.shared_bytes;
  made["slabs"] = slabs, made["workspace_bytes"] = plan.workspace_bytes;
  made["rows"] = plan.rows, made["carry"] = plan.carry, made["A"] = plan.grad_A;
  made["constant_B"] = plan.constant_B, made["constant_C"] = plan.constant_C;
  made["D"] = plan.grad_D, made["delta_bias"] = plan.grad_bias, made["u"] = plan.sum_u, made["z"] = plan.sum_z;
  return made;
}

}  // namespace

void bind_scan_backward_plan(py::module_& module) {
  module.def("selective_scan_backward_plan", &plan, py::arg("directions"), py::arg("sequences"), py::arg("sizes"),
             py::arg("groups"), py::arg("flags"), py::arg("most_shared_bytes"));
}

}  // namespace ssm::cuda
