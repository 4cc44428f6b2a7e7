// Between the two passes over time that is cut into parts: from what each part ends with to what it begins with.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/grid.h"
#include "cuda/selective_scan_tiled.h"

namespace ssm::cuda {

constexpr int kJoinThreads = 128;

// One thread per number of the states; channels are the fastest.
__global__ void __launch_bounds__(kJoinThreads) join_parts_kernel(TiledForward p) {
  const ScanInputs& first = p.directions[0].scan.in;
  const int64_t index = int64_t(blockIdx.x) * kJoinThreads + threadIdx.x, d = index % first.channels;
  const int64_t n = index / first.channels % first.states, of = index / first.channels / first.states;
  const int64_t sequence = of % p.sequences, direction = of / p.sequences;
  if (direction >= p.n_directions) return;
  const ScanInputs& in = p.directions[direction].scan.in;
  const float rate = static_cast<const float*>(in.A)[d * in.states + n] * kLog2e;
  const float* initial = static_cast<const float*>(in.initial_state);
  float h = initial == nullptr ? 0.f : initial[(sequence * in.channels + d) * in.states + n];
  const int64_t steps = sequence_at(in.sequences(), sequence).steps;
  for (int64_t part = 0; part < p.parts; ++part) {
    const int64_t unit = of * p.parts + part;
    float* state = p.part_states + (unit * in.states + n) * in.channels + d;
    const float end = part + 1 < p.parts ? *state : 0.f;  // nobody looked for that of the last
    *state = h;
    if (part * p.part_steps >= steps || part + 1 == p.parts) continue;  // without steps: not 0 times a rate of infinity
    h = fmaf(exp2_of(p.part_deltas[unit * in.channels + d] * rate), h, end);
  }
}

inline void join_parts(const TiledForward& params) {
  const ScanInputs& in = params.directions[0].scan.in;
  const int64_t threads = params.n_directions * params.sequences * in.states * in.channels;
  launch(join_parts_kernel, {grid_of(divide_up(threads, kJoinThreads)), dim3(kJoinThreads)}, in.cuda, params);
}

}  // namespace ssm::cuda
