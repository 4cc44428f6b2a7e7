// Which kernel runs a forward pass of the selective scan, and with what.
#include "cuda/selective_scan_forward.h"

#include "cuda/operators.h"
#include "cuda/selective_scan_sources.h"
#include "cuda/selective_scan_parts.cuh"
#include "cuda/selective_scan_sum.cuh"
#include "cuda/selective_scan_tiled.h"
#include "cuda/workspace.h"

namespace ssm::cuda {
namespace {

int64_t state_bytes(const ScanInputs& in) {
  return in.sequences().count * in.channels * in.states * (in.dtype == DType::f64 ? 8 : 4);
}

bool can_be_tiled(const ScanForward& scan) {
  const ScanInputs& in = scan.in;
  return !in.complex_A && in.dtype != DType::f64 && in.B.variable() && in.C.variable() && in.states > 0 &&
         in.states <= kMostTiledStates && (scan.y.dtype == in.dtype || scan.y.dtype == DType::f32) &&
         strides_are_small(scan);
}

ScanSizes sizes_of(const ScanInputs& in, int64_t directions) {
  return {directions, in.sequences().count, in.steps, in.channels, in.states, in.B.groups, in.C.groups,
          multiprocessors(in.cuda), most_shared_bytes(in.cuda)};
}

void start_tiled(const TiledLaunch& how, const TiledForward& params) {
  switch (how.plan.lanes) {
    case 1: return launch_tiled<1>(how, params);
    case 2: return launch_tiled<2>(how, params);
    case 4: return launch_tiled<4>(how, params);
    default: return launch_tiled<8>(how, params);
  }
}

// workspace: plan.workspace_bytes
void run_tiled(const ScanForward* directions, int64_t count, const TiledPlan& plan, char* workspace) {
  const ScanInputs& in = directions[0].in;
  TiledForward params = {};
  params.n_directions = count, params.sequences = in.sequences().count;
  params.parts = plan.parts, params.part_steps = plan.part_steps, params.blocks = plan.blocks;
  const TileExtent extent = tile_extent(plan);
  for (int64_t k = 0; k < count; ++k)
    params.directions[k] = tiled_scan(directions[k], plan, extent, params.stage_bytes);
  if (plan.parts > 1) {
    params.part_states = reinterpret_cast<float*>(workspace + plan.states_offset);
    params.part_deltas = reinterpret_cast<float*>(workspace + plan.deltas_offset);
    start_tiled({plan, true, in.cuda}, params);
    join_parts(params);
  }
  start_tiled({plan, false, in.cuda}, params);
}

// The first direction writes to y itself, the others to workspaces, which are added to it in their order.
void run_together(const ScanForward* directions, int64_t count) {
  ScanForward scans[kMostDirections];
  const ScanInputs& in = directions[0].in;
  const int64_t elements = in.batch * in.steps * in.channels;
  const TiledPlan plan = tiled_plan(sizes_of(in, count));
  char* workspace = allocate(in.cuda, plan.workspace_bytes + (count - 1) * elements * 4);
  char* terms = workspace + plan.workspace_bytes;
  for (int64_t k = 0; k < count; ++k) {
    scans[k] = directions[k];
    scans[k].in.z = View3(), scans[k].add_to_y = false;
    if (k == 0) continue;
    scans[k].y = {terms + (k - 1) * elements * 4, in.steps * in.channels, in.channels, 1, DType::f32};
  }
  run_tiled(scans, count, plan, workspace);
  const ScanInputs& last = directions[count - 1].in;
  add_directions({directions[0].y, last.z, reinterpret_cast<const float*>(terms), count - 1, in.batch, in.steps,
                  in.channels},
                 in.cuda);
}

}  // namespace

void selective_scan_forward(const ScanForward& scan) {
  if (scan.in.sequences().count == 0 || scan.in.channels == 0) return;
  if (can_be_tiled(scan)) {
    const TiledPlan plan = tiled_plan(sizes_of(scan.in, 1));
    return run_tiled(&scan, 1, plan, allocate(scan.in.cuda, plan.workspace_bytes));
  }
  void* states = scan.final_state != nullptr ? scan.final_state : allocate(scan.in.cuda, state_bytes(scan.in));
  selective_scan_forward_general(scan, states);
}

void selective_scan_directions_forward(const ScanForward* directions, int64_t count) {
  const ScanInputs& in = directions[0].in;
  if (in.sequences().count == 0 || in.channels == 0) return;
  bool together = count <= kMostDirections;
  for (int64_t k = 0; k < count; ++k) together = together && can_be_tiled(directions[k]);
  if (together) return run_together(directions, count);
  char* states = allocate(in.cuda, state_bytes(in));
  for (int64_t k = 0; k < count; ++k) {
    ScanForward scan = directions[k];
    scan.add_to_y = k > 0;
    selective_scan_forward_general(scan, states);
  }
}

}  // namespace ssm::cuda
