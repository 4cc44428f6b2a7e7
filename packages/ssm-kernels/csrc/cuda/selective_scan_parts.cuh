// Between the two passes over time that is cut into parts: from what each part ends with to what it begins with.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/grid.h"
#include "cuda/selective_scan_tiled.h"

namespace ssm::cuda {

constexpr int kJoinThreads = 128;

// One thread per number of the states; blocks of the grid are (direction, sequence, channels) along x and n along y.
__global__ void __launch_bounds__(kJoinThreads) join_parts_kernel(TiledForward p) {
  const unsigned blocks = unsigned((p.directions[0].scan.in.channels + kJoinThreads - 1) / kJoinThreads);
  const unsigned of = blockIdx.x / blocks, n_sequences = unsigned(p.sequences);
  const unsigned direction = of / n_sequences, sequence = of % n_sequences;
  const int64_t d = int64_t(blockIdx.x % blocks) * kJoinThreads + threadIdx.x, n = blockIdx.y;
  const ScanInputs& in = p.directions[direction].scan.in;
  if (d >= in.channels) return;
  const float rate = static_cast<const float*>(in.A)[d * in.states + n] * kLog2e;
  const float* initial = static_cast<const float*>(in.initial_state);
  float h = initial == nullptr ? 0.f : initial[(sequence * in.channels + d) * in.states + n];
  const int64_t steps = sequence_at(in.sequences(), sequence).steps;
  for (int64_t part = 0; part < p.parts; ++part) {
    const int64_t unit = int64_t(of) * p.parts + part;
    float* state = p.part_states + (unit * in.states + n) * in.channels + d;
    const float end = part + 1 < p.parts ? *state : 0.f;  // nobody looked for that of the last
    *state = h;
    if (part * p.part_steps >= steps || part + 1 == p.parts) continue;  // without steps: not 0 times a rate of infinity
    h = fmaf(exp2_of(p.part_deltas[unit * in.channels + d] * rate), h, end);
  }
}

inline void join_parts(const TiledForward& params) {
  const ScanInputs& in = params.directions[0].scan.in;
  const int64_t blocks = params.n_directions * params.sequences * divide_up(in.channels, kJoinThreads);
  launch(join_parts_kernel, {grid_of(blocks, in.states), dim3(kJoinThreads)}, in.cuda, params);
}

}  // namespace ssm::cuda
