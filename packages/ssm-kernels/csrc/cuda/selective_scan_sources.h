// From which tiles of the scan's tensors are read, and how: functions of addresses, strides and sizes.
#pragma once

#include "cuda/selective_scan_tile.cuh"
#include "cuda/selective_scan_tiled.h"

namespace ssm::cuda {

// Of the tiles of a plan.
struct TileExtent {
  int channels, states, steps;
};

inline TileExtent tile_extent(const TiledPlan& plan) {
  const int channels = kTiledThreads / plan.lanes;
  return {channels, plan.lanes * plan.lane_states, channels == 128 ? 16 : 32};
}

// A tensor as tiles see it: strides of the steps and the columns, and all else that addresses are made of, in elements.
struct TiledTensor {
  char* data;
  int64_t stride_step, stride_column, columns;
  int64_t other_strides;  // or-ed together
  int32_t element_bytes;
};

// The widest of 16, 8 and 4 bytes that divides everything in `bits` and does not exceed `most`; 0 if none does.
inline int32_t copy_bytes_of(uint64_t bits, int64_t most) {
  for (int32_t bytes = 16; bytes >= 4; bytes /= 2)
    if (bits % uint64_t(bytes) == 0 && bytes <= most) return bytes;
  return 0;
}

inline TileSource tile_source(const TiledTensor& t, int tile_columns) {
  TileSource source = {t.data, t.stride_step, t.stride_column, t.element_bytes, 0, false};
  const auto bytes = [&](int64_t elements) { return uint64_t(elements) * uint64_t(t.element_bytes); };
  const uint64_t address = reinterpret_cast<uintptr_t>(t.data), others = bytes(t.other_strides);
  if (t.stride_column == 1) {
    source.copy_bytes =
        copy_bytes_of(address | others | bytes(t.stride_step) | bytes(t.columns), tile_columns * t.element_bytes);
  } else if (t.stride_step == 1 || t.stride_step == -1) {
    source.steps_together = true;
    if (t.stride_step == 1) source.copy_bytes = copy_bytes_of(address | others | bytes(t.stride_column), 16) / 16 * 16;
  }
  return source;
}

inline TiledScan tiled_scan(const ScanForward& scan, const TiledPlan& plan, const TileExtent& extent,
                            int32_t& stage_bytes) {
  const ScanInputs& in = scan.in;
  TiledScan tiled = {scan, {}, {}};
  const auto bytes = int32_t(size_of(in.dtype));
  const View3* views[] = {&in.u, &in.delta, &in.z};
  for (int kind = kU; kind <= kZ; ++kind) {
    const View3& v = *views[kind];
    const int64_t others = (in.batch > 1 ? v.stride_b : 0) | plan.blocks.span * v.stride_d;
    tiled.sources[kind] = tile_source({v.data, v.stride_l, v.stride_d, plan.blocks.span, others, bytes}, extent.channels);
  }
  for (int kind = kB; kind <= kC; ++kind) {
    const CoefficientView& v = kind == kB ? in.B : in.C;
    const int64_t others = (in.batch > 1 ? v.stride_b : 0) | (v.groups > 1 ? v.stride_g : 0);
    tiled.sources[kind] = tile_source({v.data, v.stride_l, v.stride_n, in.states, others, bytes}, extent.states);
  }
  int32_t offset = 0;
  for (int kind = kU; kind < kTileKinds; ++kind) {
    tiled.offsets[kind] = offset;
    if (tiled.sources[kind].data == nullptr) continue;
    offset += (tile_bytes(kind >= kB ? extent.states : extent.channels, extent.steps, tiled.sources[kind]) + 15) / 16 * 16;
  }
  if (offset > stage_bytes) stage_bytes = offset;
  return tiled;
}

}  // namespace ssm::cuda
