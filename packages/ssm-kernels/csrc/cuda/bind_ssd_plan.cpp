#include <pybind11/stl.h>

#include <array>

#include "cuda/bind_plans.h"
#include "cuda/ssd_plan.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

py::dict ssd_plan(const SsdInputs& in, bool backward) {
  const SsdPlan plan = plan_ssd(in, backward);
  const SsdWorkspace& w = plan.workspace;
  py::dict parts, made;
  parts["states"] = w.states, parts["decays"] = w.decays;
  if (backward) {
    parts["grad_states"] = w.grad_states, parts["grad_A"] = w.grad_A;
    parts["grad_dt_bias"] = w.grad_dt_bias, parts["grad_D"] = w.grad_D;
  }
  made["chunk"] = kSsdChunk, made["chunks"] = plan.chunks;
  made["channel_tiles"] = plan.channel_tiles, made["state_tiles"] = plan.state_tiles;
  made["carry_blocks"] = plan.carry_blocks, made["workspace"] = parts, made["bytes"] = w.bytes;
  return made;
}

// Place of the first chunk of a sequence and how many it has.
std::array<int64_t, 2> ssd_sequence_chunks(int64_t first, int64_t steps, int64_t index, bool packed) {
  const SsdSequenceChunks chunks = ssd_chunks_of({index, packed ? 0 : index, first, steps}, packed);
  return {chunks.first, chunks.count};
}

}  // namespace

void bind_ssd_plan(py::module_& module) {
  module.def("ssd_plan", &ssd_plan, py::arg("inputs"), py::arg("backward"));
  module.def("ssd_sequence_chunks", &ssd_sequence_chunks, py::arg("first"), py::arg("steps"), py::arg("index"),
             py::arg("packed"));
}

}  // namespace ssm::cuda
