// How a scan is cut into blocks: functions of sizes only.
#pragma once

#include <cstdint>

#include "params.h"

namespace ssm::cuda {

constexpr int64_t kMostTiledStates = 64;
constexpr int kTiledThreads = 128;

// Channels are cut into spans that share their rows of B and C, spans into blocks of `block_channels`.
struct ChannelBlocks {
  int64_t span, blocks_per_span, blocks, block_channels;

  SSM_HOST_DEVICE int64_t first(int64_t block) const {
    return block / blocks_per_span * span + block % blocks_per_span * block_channels;
  }
  SSM_HOST_DEVICE int64_t count(int64_t block) const {
    const int64_t rest = span - block % blocks_per_span * block_channels;
    return rest < block_channels ? rest : block_channels;
  }
};

inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

// groups_B, groups_C: 0 where the coefficient is constant in time.
inline ChannelBlocks channel_blocks(int64_t channels, int64_t groups_B, int64_t groups_C, int64_t block_channels) {
  if (channels == 0) return {0, 0, 0, block_channels};
  int64_t span = channels;
  if (groups_B > 0) span = common_divisor(span, channels / groups_B);
  if (groups_C > 0) span = common_divisor(span, channels / groups_C);
  const int64_t per_span = (span + block_channels - 1) / block_channels;
  return {span, per_span, channels / span * per_span, block_channels};
}

struct ScanSizes {
  int64_t directions, sequences, steps, channels, states, groups_B, groups_C, multiprocessors, most_shared_bytes;
};

// Steps of a tile of the forward kernel, by the channels of a block.
constexpr int tile_steps(int channels) { return channels == 128 ? 16 : 32; }

// Shared memory of a block of the forward kernel: what is kept as floats, and at most for two stages of tiles as stored.
constexpr int64_t tiled_float_bytes(int64_t channels, int64_t states) {
  const int64_t steps = tile_steps(int(channels));
  return 208 + 12 * steps + 4 * (2 * channels + (2 * channels + 2 * states) * (steps + 4));
}
constexpr int64_t tiled_stage_bytes(int64_t channels, int64_t states) {
  return 4 * (3 * channels + 2 * states) * (tile_steps(int(channels)) + 4);
}

// Of the tiled forward kernel.
struct TiledPlan {
  int32_t lanes, lane_states;  // that share a channel; of one of them: lanes * lane_states >= n
  int64_t parts, part_steps;   // of the time of a sequence; part_steps is a multiple of kScanChunk
  ChannelBlocks blocks;
  int64_t grid;
  int64_t states_offset, deltas_offset, workspace_bytes;  // of part_states and part_deltas, with several parts
};

constexpr int64_t kMostLanes = 8, kMostLaneStates = 16;

// A scheduler hides what its warps wait for with 4 of them; a multiprocessor has 4 schedulers.
constexpr int64_t kWarpsWanted = 16;
// With fewer than this, time is split: that computes the decays twice, and so needs several parts to gain anything.
constexpr int64_t kWarpsNeeded = 12;
constexpr int64_t kFewestParts = 3, kShortestPart = 4 * kScanChunk;

inline int64_t padded_states(int64_t states) {
  int64_t padded = 1;
  while (padded < states) padded *= 2;
  return padded;
}

inline TiledPlan tiled_plan(const ScanSizes& sizes) {
  const int64_t padded = padded_states(sizes.states);
  TiledPlan plan = {};
  int64_t warps = 0;
  // Few lanes: fewer reads and additions.  Many lanes: more warps.
  for (int64_t lanes = 1; lanes <= kMostLanes && (lanes == 1 || 2 * lanes <= padded); lanes *= 2) {
    if (padded / lanes > kMostLaneStates) continue;
    const int64_t block_channels = kTiledThreads / lanes;
    const int64_t shared_bytes = tiled_float_bytes(block_channels, padded) + 2 * tiled_stage_bytes(block_channels, padded);
    if (shared_bytes > sizes.most_shared_bytes) continue;  // more lanes share fewer channels
    plan.lanes = int32_t(lanes), plan.lane_states = int32_t(padded / lanes);
    plan.blocks = channel_blocks(sizes.channels, sizes.groups_B, sizes.groups_C, kTiledThreads / lanes);
    warps = sizes.directions * sizes.sequences * plan.blocks.blocks * (kTiledThreads / 32);
    if (warps >= kWarpsWanted * sizes.multiprocessors) break;
  }
  plan.parts = 1, plan.part_steps = (sizes.steps + kScanChunk - 1) / kScanChunk * kScanChunk;
  if (warps > 0 && warps < kWarpsNeeded * sizes.multiprocessors) {
    const int64_t wanted = (kWarpsWanted * sizes.multiprocessors + warps - 1) / warps;
    int64_t part_steps = (sizes.steps + wanted - 1) / wanted;
    part_steps = (part_steps + kScanChunk - 1) / kScanChunk * kScanChunk;
    if (part_steps < kShortestPart) part_steps = kShortestPart;
    const int64_t parts = (sizes.steps + part_steps - 1) / part_steps;
    if (parts >= kFewestParts) plan.parts = parts, plan.part_steps = part_steps;
  }
  const int64_t units = sizes.directions * sizes.sequences * plan.parts;
  plan.grid = units * plan.blocks.blocks;
  if (plan.parts > 1) {
    const auto aligned = [](int64_t floats) { return (floats * 4 + 255) / 256 * 256; };
    plan.deltas_offset = aligned(units * sizes.states * sizes.channels);
    plan.workspace_bytes = plan.deltas_offset + aligned(units * sizes.channels);
  }
  return plan;
}

}  // namespace ssm::cuda
