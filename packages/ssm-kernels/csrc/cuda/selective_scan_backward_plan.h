// What the backward pass of the selective scan launches, and where its scratch memory goes: functions of sizes alone.
//
// A block handles one sequence of one direction and a slab: neighbouring channels that share their rows of B and C.  It
// writes its part of every gradient that is a sum over channels, sequences or directions into a place of its own.
#pragma once

#include <cstdint>

#include "cuda/selective_scan_plan.h"
#include "params.h"

namespace ssm::cuda {

constexpr int64_t kMostDirections = 4;

struct ScanBackwardShape {
  int64_t directions = 1, sequences = 0, batch = 0, steps = 0, channels = 0, states = 0;
  int64_t groups_B = 1, groups_C = 1;    // 0: constant in time
  bool complex_A = false, wide = false;  // wide: double is computed with
  bool gated = false;
  bool short_strides = true;  // steps, and strides in bytes, are less than 2^31
  int64_t most_shared_bytes = 227 << 10;
  bool sum_u = false, sum_z = false;  // several directions share the gradient of u, of z
};

enum class ScanBackwardKernel : int32_t { general, lanes };

struct ScanBackwardPlan {
  ScanBackwardKernel kernel = ScanBackwardKernel::general;
  int64_t lanes = 0;    // of a warp that share the states of a channel
  int64_t warps = 1;    // per block
  ChannelBlocks slabs = {};
  int64_t blocks = 0, shared_bytes = 0;
  // Places in the workspace in bytes.  Rows: (direction, slab, b, l, B and C, n); matrices: (direction, sequence, n, d);
  // vectors: (direction, sequence, d); sums over directions: (direction, b, l, d).
  int64_t rows = 0, carry = 0, grad_A = 0, constant_B = 0, constant_C = 0, grad_D = 0, grad_bias = 0;
  int64_t sum_u = 0, sum_z = 0;
  int64_t workspace_bytes = 0;

  SSM_HOST_DEVICE int64_t threads() const { return 32 * warps; }
};

namespace scan_backward {

constexpr int64_t kGeneralChannels = 32;  // one per lane
constexpr int64_t kPitch = kScanChunk + 4;  // floats from row to row of a tile: neighbours in different banks

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes hold two states of each of two channels.
inline int64_t lanes_for(int64_t states) {
  int64_t lanes = 2;
  while (2 * lanes < states) lanes *= 2;
  return lanes;
}
constexpr int64_t channels_per_warp(int64_t lanes) { return 2 * 32 / lanes; }
constexpr int64_t warps_for(int64_t lanes) { return lanes == 2 ? 2 : 4; }

// Steps whose states and decays are in registers at once.
constexpr int64_t kBatchSteps = 8;

// Steps of a channel that a thread prepares and finishes together.
constexpr int64_t kItemSteps = 8;

constexpr int64_t kBlockBytes = 384;  // what the block works on

// Blocks per multiprocessor that registers (and, up to 32 states, shared memory) suffice for.
constexpr int64_t blocks_wanted(int64_t lanes) { return 12 / warps_for(lanes); }

constexpr int64_t lanes_shared_bytes(int64_t lanes, bool gated) {
  const int64_t warps = warps_for(lanes), states = 2 * lanes, slab = warps * channels_per_warp(lanes);
  const int64_t tiles = gated ? 8 : 6;  // delta, delta u, dy, q2, u, slope; y and gate
  const int64_t floats = 4 * 32 * warps * (kScanChunk / kBatchSteps)  // states before each batch
                         + tiles * slab * kPitch
                         + 2 * states * kPitch                        // B and C
                         + warps * 2 * states * kPitch                // each warp's part of their gradients
                         + 2 * slab * (kScanChunk / kItemSteps)       // sums of D and delta_bias
                         + kScanChunk;                                // positions
  return kBlockBytes + floats * 4;
}

inline int64_t general_shared_bytes(bool complex_A, bool wide) {
  const int64_t numbers = complex_A ? 2 : 1;
  const int64_t per_lane = 6 * kScanChunk + numbers * (2 * kScanChunk + 1);
  return per_lane * 32 * (wide ? 8 : 4);
}

}  // namespace scan_backward

inline ScanBackwardPlan plan_scan_backward(const ScanBackwardShape& s) {
  using namespace scan_backward;
  ScanBackwardPlan plan;
  const bool rows_of_both = s.groups_B > 0 && s.groups_C > 0;
  int64_t slab = kGeneralChannels;
  const bool tiled = rows_of_both && s.short_strides && !s.complex_A && !s.wide && s.states >= 1 &&
                     s.states <= kMostTiledStates;
  if (tiled && lanes_shared_bytes(lanes_for(s.states), s.gated) <= s.most_shared_bytes) {
    plan.kernel = ScanBackwardKernel::lanes;
    plan.lanes = lanes_for(s.states);
    plan.warps = warps_for(plan.lanes);
    slab = plan.warps * channels_per_warp(plan.lanes);
    plan.shared_bytes = lanes_shared_bytes(plan.lanes, s.gated);
  } else {
    plan.shared_bytes = general_shared_bytes(s.complex_A, s.wide);
  }
  plan.slabs = channel_blocks(s.channels, s.groups_B, s.groups_C, slab);
  plan.blocks = s.directions * s.sequences * plan.slabs.blocks;

  const int64_t matrix = s.directions * s.sequences * s.channels * s.states;
  const int64_t vector = s.directions * s.sequences * s.channels;
  const int64_t tensor = s.directions * s.batch * s.steps * s.channels;
  const bool any_rows = s.groups_B > 0 || s.groups_C > 0;
  const auto take = [&](int64_t& place, int64_t numbers) {
    place = plan.workspace_bytes;
    plan.workspace_bytes += ceil_div(numbers * (s.wide ? 8 : 4), 256) * 256;
  };
  take(plan.rows, any_rows ? s.directions * plan.slabs.blocks * s.batch * s.steps * 2 * s.states : 0);
  take(plan.carry, plan.kernel == ScanBackwardKernel::general ? matrix : 0);
  take(plan.grad_A, matrix);
  take(plan.constant_B, s.groups_B > 0 ? 0 : matrix);
  take(plan.constant_C, s.groups_C > 0 ? 0 : matrix);
  take(plan.grad_D, vector);
  take(plan.grad_bias, vector);
  take(plan.sum_u, s.sum_u ? tensor : 0);
  take(plan.sum_z, s.sum_z ? tensor : 0);
  return plan;
}

}  // namespace ssm::cuda
