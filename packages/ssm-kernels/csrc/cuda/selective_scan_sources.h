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
  return {channels, plan.lanes * plan.lane_states, tile_steps(channels)};
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
  const auto bytes = [&](int64_t elements) { return elements * t.element_bytes; };
  const auto bits = [&](int64_t elements) { return uint64_t(bytes(elements)); };
  TileSource source = {t.data, int32_t(bytes(t.stride_step)), int32_t(bytes(t.stride_column)), 0, false};
  const uint64_t address = reinterpret_cast<uintptr_t>(t.data), others = bits(t.other_strides);
  if (t.stride_column == 1) {
    source.copy_bytes =
        copy_bytes_of(address | others | bits(t.stride_step) | bits(t.columns), tile_columns * t.element_bytes);
  } else if (t.stride_step == 1 || t.stride_step == -1) {
    source.steps_together = true;
    if (t.stride_step == 1) source.copy_bytes = copy_bytes_of(address | others | bits(t.stride_column), 16) / 16 * 16;
  }
  return source;
}

inline TiledTensor tiled_tensor(const ScanInputs& in, const View3& v, int64_t span) {
  const int64_t others = (in.batch > 1 ? v.stride_b : 0) | (span < in.channels ? span * v.stride_d : 0);
  return {v.data, v.stride_l, v.stride_d, span, others, int32_t(size_of(in.dtype))};
}

inline TiledTensor tiled_tensor(const ScanInputs& in, const CoefficientView& v) {
  const int64_t others = (in.batch > 1 ? v.stride_b : 0) | (v.groups > 1 ? v.stride_g : 0);
  return {v.data, v.stride_l, v.stride_n, in.states, others, int32_t(size_of(in.dtype))};
}

// Whether positions and strides in bytes fit in 32 bits.
inline bool strides_are_small(const ScanForward& scan) {
  const ScanInputs& in = scan.in;
  const int64_t most = 0x7fffffff;
  const auto small = [&](int64_t stride) { return stride <= most / 4 && stride >= -most / 4; };
  bool all = in.steps < most / 4;
  for (const View3* v : {&in.u, &in.delta, &in.z, &scan.y}) all = all && small(v->stride_l) && small(v->stride_d);
  for (const CoefficientView* v : {&in.B, &in.C}) all = all && small(v->stride_l) && small(v->stride_n);
  return all;
}

// Whether two neighbouring channels of y can be stored at once.
inline bool y_in_pairs(const ScanForward& scan, int64_t span) {
  const View3& y = scan.y;
  const int64_t strides = (scan.in.batch > 1 ? y.stride_b : 0) | y.stride_l | span;
  return y.stride_d == 1 && strides % 2 == 0 &&
         reinterpret_cast<uintptr_t>(y.data) % uintptr_t(2 * size_of(y.dtype)) == 0;
}

inline TiledScan tiled_scan(const ScanForward& scan, const TiledPlan& plan, const TileExtent& extent,
                            int32_t& stage_bytes) {
  const ScanInputs& in = scan.in;
  const int64_t span = plan.blocks.span;
  TiledScan tiled = {scan, {}, {}, y_in_pairs(scan, span)};
  tiled.sources[kU] = tile_source(tiled_tensor(in, in.u, span), extent.channels);
  tiled.sources[kDelta] = tile_source(tiled_tensor(in, in.delta, span), extent.channels);
  tiled.sources[kZ] = tile_source(tiled_tensor(in, in.z, span), extent.channels);
  tiled.sources[kB] = tile_source(tiled_tensor(in, in.B), extent.states);
  tiled.sources[kC] = tile_source(tiled_tensor(in, in.C), extent.states);
  int32_t offset = 0;
  for (int kind = kU; kind < kTileKinds; ++kind) {
    tiled.offsets[kind] = offset;
    if (tiled.sources[kind].data == nullptr) continue;
    const int columns = kind == kB || kind == kC ? extent.states : extent.channels;
    offset += tile_bytes(columns, extent.steps, int(size_of(in.dtype)), tiled.sources[kind].steps_together);
    offset = (offset + 15) / 16 * 16;
  }
  if (offset > stage_bytes) stage_bytes = offset;
  return tiled;
}

}  // namespace ssm::cuda
