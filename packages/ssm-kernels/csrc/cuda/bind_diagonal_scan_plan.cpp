#include <array>

#include "cuda/bind_plans.h"
#include "cuda/diagonal_scan_plan.h"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace ssm::cuda {
namespace {

DiagonalInputs inputs(const std::array<int64_t, 3>& sizes, int dtype, bool is_complex,
                      const std::array<bool, 3>& own_a, std::optional<int64_t> packed_sequences) {
  static const int64_t somewhere = 0;  // the rules ask whether there are offsets and do not read them
  DiagonalInputs in;
  in.batch = sizes[0], in.steps = sizes[1], in.channels = sizes[2];
  in.dtype = static_cast<DType>(dtype), in.is_complex = is_complex;
  in.a_per_batch = own_a[0], in.a_per_step = own_a[1], in.a_per_channel = own_a[2];
  if (packed_sequences) in.offsets = &somewhere, in.packed_sequences = *packed_sequences;
  return in;
}

py::dict as_dict(const DiagonalPlan& plan, int64_t steps) {
  py::dict made;
  made["row"] = plan.row, made["row_blocks"] = plan.row_blocks, made["chunks"] = plan.chunks;
  made["warps"] = plan.warps, made["run_steps"] = plan.run_steps, made["blocks"] = plan.blocks();
  made["chunk_steps"] = diagonal_chunk_steps(plan, steps);
  made["tile_offset"] = plan.tile_offset, made["shared_bytes"] = plan.shared_bytes;
  made["groups"] = plan.groups, made["summed"] = plan.summed, made["sums"] = plan.sums;
  made["number_bytes"] = plan.number_bytes, made["partials_offset"] = plan.partials_offset;
  made["workspace_bytes"] = plan.workspace_bytes;
  return made;
}

}  // namespace

// gradient_of_a: None in the forward pass, in the backward pass whether it is wanted.
void bind_diagonal_scan_plan(py::module_& module) {
  module.def(
      "diagonal_scan_plan",
      [](const std::array<int64_t, 3>& sizes, int dtype, bool is_complex, const std::array<bool, 3>& own_a,
         std::optional<int64_t> packed_sequences, std::optional<bool> gradient_of_a, bool turned,
         int64_t multiprocessors) {
        const DiagonalInputs in = inputs(sizes, dtype, is_complex, own_a, packed_sequences);
        const SumOfA sum = sum_of_a(in, gradient_of_a.value_or(false));
        return as_dict(plan_diagonal_scan(in, gradient_of_a.has_value(), turned, sum, multiprocessors), in.steps);
      },
      py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("is_complex"), py::arg("own_a"),
      py::arg("packed_sequences"), py::arg("gradient_of_a"), py::arg("turned"), py::arg("multiprocessors"));
}

}  // namespace ssm::cuda
