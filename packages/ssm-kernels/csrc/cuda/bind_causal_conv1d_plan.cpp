#include "cuda/bind_plans.h"
#include "cuda/causal_conv1d_plan.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

py::dict conv_plan(int64_t batch, int64_t steps, int64_t channels, int64_t sequences, bool states, int vector,
                   bool staged) {
  const ConvPlan plan = plan_conv({batch, steps, channels, sequences, states, staged}, vector);
  py::dict made;
  made["threads"] = kConvThreads, made["lanes"] = plan.lanes, made["rows"] = plan.rows;
  made["run_steps"] = plan.run_steps, made["runs_per_line"] = plan.runs_per_line, made["runs"] = plan.runs;
  made["vectors"] = plan.vectors, made["tiles"] = plan.tiles;
  made["run_blocks"] = plan.run_blocks, made["state_blocks"] = plan.state_blocks, made["blocks"] = plan.blocks();
  made["row_blocks"] = plan.row_blocks();
  made["partial_bytes"] = conv_partial_bytes(plan, kMostTaps, channels, 4);
  made["shared_bytes"] = conv_shared_bytes(plan, vector, kMostTaps, vector == 1 ? 8 : 4);
  made["tile_bytes"] = 2 * conv_tile_bytes(plan, vector, 2 * (kMostTaps - 1), 4);
  return made;
}

}  // namespace

void bind_causal_conv1d_plan(py::module_& module) {
  module.def("causal_conv1d_plan", &conv_plan, py::arg("batch"), py::arg("steps"), py::arg("channels"),
             py::arg("sequences"), py::arg("states"), py::arg("vector"), py::arg("staged"));
}

}  // namespace ssm::cuda
