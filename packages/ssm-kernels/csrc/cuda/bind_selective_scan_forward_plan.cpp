#include <pybind11/stl.h>

#include <vector>

#include "cuda/bind_plans.h"
#include "cuda/selective_scan_plan.h"
#include "cuda/selective_scan_sources.h"
#include "cuda/time_order.h"

namespace py = pybind11;

namespace ssm::cuda {
namespace {

py::dict forward_plan(const std::array<int64_t, 5>& sizes, const std::array<int64_t, 2>& groups,
                      int64_t multiprocessors, int64_t most_shared_bytes) {
  const auto [directions, sequences, steps, channels, states] = sizes;
  const TiledPlan plan = tiled_plan(
      {directions, sequences, steps, channels, states, groups[0], groups[1], multiprocessors, most_shared_bytes});
  std::vector<std::pair<int64_t, int64_t>> blocks;
  for (int64_t block = 0; block < plan.blocks.blocks; ++block)
    blocks.emplace_back(plan.blocks.first(block), plan.blocks.count(block));
  py::dict made;
  made["lanes"] = plan.lanes, made["lane_states"] = plan.lane_states;
  made["parts"] = plan.parts, made["part_steps"] = plan.part_steps;
  made["blocks"] = blocks, made["grid"] = plan.grid;
  made["states_offset"] = plan.states_offset, made["deltas_offset"] = plan.deltas_offset;
  made["workspace_bytes"] = plan.workspace_bytes;
  const int64_t block_channels = kTiledThreads / plan.lanes, block_states = plan.lanes * plan.lane_states;
  made["shared_bytes"] =
      tiled_float_bytes(block_channels, block_states) + 2 * tiled_stage_bytes(block_channels, block_states);
  return made;
}

// Positions of the steps of the sequence [first, first + count) of a tensor of `steps` steps.
std::vector<int64_t> time_order(int64_t steps, int64_t first, int64_t count, bool reverse, int64_t columns) {
  ScanInputs in;
  in.steps = steps, in.reverse = reverse, in.columns = columns;
  const TimeOrder order(in, {0, 0, first, count});
  std::vector<int64_t> positions;
  for (int64_t step = 0; step < count; ++step) positions.push_back(order.position(step));
  return positions;
}

// (first step, steps, first checkpoint) of each sequence for any offsets.
std::vector<std::array<int64_t, 3>> packed_sequences(const std::vector<int64_t>& offsets, int64_t steps) {
  const Sequences sequences = {int64_t(offsets.size()) - 1, steps, offsets.data()};
  std::vector<std::array<int64_t, 3>> made;
  for (int64_t i = 0; i < sequences.count; ++i) {
    const Sequence sequence = sequence_at(sequences, i);
    made.push_back({sequence.first, sequence.steps, first_checkpoint(sequences, sequence)});
  }
  return made;
}

// How tiles of a tensor with an address and strides (step, column, others or-ed) in elements are copied.
std::pair<int32_t, bool> tile_copies(int64_t address, const std::array<int64_t, 3>& strides, int64_t columns,
                                     int32_t element_bytes, int tile_columns) {
  char* data = reinterpret_cast<char*>(static_cast<intptr_t>(address));
  const TileSource source =
      tile_source({data, strides[0], strides[1], columns, strides[2], element_bytes}, tile_columns);
  return {source.copy_bytes, source.steps_together};
}

}  // namespace

void bind_selective_scan_forward_plan(py::module_& module) {
  module.def("selective_scan_forward_plan", &forward_plan, py::arg("sizes"), py::arg("groups"),
             py::arg("multiprocessors"), py::arg("most_shared_bytes"),
             "sizes: directions, sequences, steps, channels, states");
  module.def("scan_time_order", &time_order);
  module.def("scan_packed_sequences", &packed_sequences);
  module.def("scan_tile_copies", &tile_copies);
}

}  // namespace ssm::cuda
