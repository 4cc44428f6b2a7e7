#include "cuda/bind_plans.h"
#include "cuda/s4_kernels_plan.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

py::dict vandermonde_plan(int64_t channels, int64_t rows, int64_t steps, bool wide, int multiprocessors) {
  const VandermondePlan plan = plan_vandermonde(channels, rows, steps, wide, multiprocessors);
  py::dict made;
  made["lines_per_thread"] = plan.lines_per_thread, made["tiles"] = plan.tiles, made["blocks"] = plan.blocks;
  made["steps_of_tile"] = plan.steps(), made["forward_numbers"] = vandermonde_forward_numbers(plan);
  made["backward_numbers"] = vandermonde_backward_numbers(plan);
  return made;
}

py::dict cauchy_plan(int64_t channels, int64_t rows, int64_t nodes, int multiprocessors) {
  const CauchyPlan plan = plan_cauchy(channels, rows, nodes, multiprocessors);
  py::dict made;
  made["channels"] = plan.channels, made["channel_groups"] = plan.channel_groups, made["tiles"] = plan.tiles;
  made["nodes_per_thread"] = plan.nodes_per_thread, made["nodes_of_tile"] = plan.nodes();
  made["blocks"] = plan.blocks, made["shared_numbers"] = cauchy_forward_numbers(plan);
  return made;
}

py::dict pole_sums_plan(int64_t channels, int64_t rows, int64_t states, int64_t nodes) {
  const PoleSumsPlan plan = plan_pole_sums(channels, rows, states, nodes);
  py::dict made;
  made["channels"] = plan.channels, made["channel_groups"] = plan.channel_groups, made["states"] = plan.states;
  made["sharers"] = plan.sharers(), made["pieces"] = plan.pieces, made["piece_nodes"] = plan.piece_nodes;
  made["blocks"] = plan.blocks, made["shared_numbers"] = pole_sums_numbers(plan);
  made["workspace_bytes"] = pole_sums_bytes(plan.pieces, channels, rows, states, 4);
  return made;
}

}  // namespace

void bind_s4_kernels_plan(py::module_& module) {
  module.def("log_vandermonde_plan", &vandermonde_plan, py::arg("channels"), py::arg("rows"), py::arg("steps"),
             py::arg("wide"), py::arg("multiprocessors"));
  module.def("cauchy_plan", &cauchy_plan, py::arg("channels"), py::arg("rows"), py::arg("nodes"),
             py::arg("multiprocessors"));
  module.def("cauchy_pole_sums_plan", &pole_sums_plan, py::arg("channels"), py::arg("rows"), py::arg("states"),
             py::arg("nodes"));
}

}  // namespace ssm::cuda
