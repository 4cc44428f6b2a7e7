// What the tiled forward kernel of the selective scan is given.
#pragma once

#include "cuda/selective_scan_plan.h"
#include "cuda/selective_scan_tile.cuh"
#include "params.h"

namespace ssm::cuda {

constexpr int kMostDirections = 4;

// Tensors that are brought to shared memory.
enum TileOf { kU, kDelta, kZ, kB, kC, kTileKinds };

struct TiledScan {
  ScanForward scan;
  TileSource sources[kTileKinds];
  int32_t offsets[kTileKinds];  // of their tiles in a stage
};

// Blocks of the grid are (direction, sequence, part of the time, channels), the last fastest.
struct TiledForward {
  TiledScan directions[kMostDirections];
  int64_t sequences, parts, part_steps;  // part_steps: a multiple of kScanChunk
  ChannelBlocks blocks;
  int32_t stage_bytes;
  // Time in several parts.  (directions, sequences, parts, n, d): the state at the end of each if it began with 0, then
  // the state it begins with.  (directions, sequences, parts, d): the sum of its step sizes.
  float* part_states = nullptr;
  float* part_deltas = nullptr;
};
static_assert(sizeof(TiledForward) <= 4096);

// Starts the kernel for a plan; `ends` wants only the states that parts of time end with.
struct TiledLaunch {
  TiledPlan plan;
  bool ends;
  CudaCall call;
};

// One for each number of lanes, in a file of its own.
template <int kLanes>
void launch_tiled(const TiledLaunch& launch, const TiledForward& params);

}  // namespace ssm::cuda
