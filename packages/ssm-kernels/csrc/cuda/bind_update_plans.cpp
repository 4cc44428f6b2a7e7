#include "cuda/bind_plans.h"
#include "cuda/causal_conv1d_update_plan.h"
#include "cuda/selective_state_update_plan.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

py::dict conv_update_plan(int64_t batch, int64_t steps, int64_t channels) {
  const ConvUpdatePlan plan = plan_conv_update(batch, steps, channels);
  py::dict made;
  made["threads"] = kConvUpdateThreads, made["blocks_per_row"] = plan.blocks_per_row, made["blocks"] = plan.blocks;
  return made;
}

py::dict state_update_plan(int64_t batch, int64_t heads, int64_t channels, int64_t states, bool vectors,
                           bool channels_adjacent) {
  const StateUpdatePlan plan = plan_state_update(batch, heads, channels, states, vectors, channels_adjacent);
  py::dict made;
  made["threads"] = kStateUpdateThreads, made["vector"] = plan.vector, made["lanes"] = plan.lanes;
  made["blocks_per_head"] = plan.blocks_per_head, made["blocks"] = plan.blocks;
  return made;
}

}  // namespace

void bind_update_plans(py::module_& module) {
  module.def("causal_conv1d_update_plan", &conv_update_plan, py::arg("batch"), py::arg("steps"), py::arg("channels"));
  module.def("selective_state_update_plan", &state_update_plan, py::arg("batch"), py::arg("heads"),
             py::arg("channels"), py::arg("states"), py::arg("vectors"), py::arg("channels_adjacent"));
}

}  // namespace ssm::cuda
