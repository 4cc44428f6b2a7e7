// What the forward and the backward pass of the SSD scan share: how heads are cut into tasks ("slabs"), chunks of time,
// and how tensors are moved to tiles, which are in processing order and in the compute type.
//
// Inside a chunk, y = (L * C B^T) dt x with L[i][j] the decay from step j to step i; between chunks the state is
// carried.  Source: Dao & Gu 2024, arXiv:2405.21060, Section 6.
#pragma once

#include "cpu/chunk_product.h"
#include "cpu/scratch.h"
#include "cpu/tile.h"
#include "ssd_scan_params.h"

namespace ssm::SSM_ISA {

// Steps of a chunk: products between chunks cost as much for any number, those inside grow with it.
constexpr int64_t kSsdSteps = 64;

template <class F>
SSM_INLINE int64_t whole_vectors(int64_t count) {
  return ceil_div(count, kWidth<F>) * kWidth<F>;
}

// Neighbouring heads of one group.
struct Heads {
  int64_t first, count, group;
};

struct SsdPartition {
  int64_t heads_per_group, heads_per_slab, slabs_per_group, slabs;

  // `wanted_tasks`: how many there should be at least; each sequence makes tasks of all slabs.
  SsdPartition(const SsdInputs& in, int64_t wanted_tasks) : heads_per_group(in.heads / in.groups) {
    const int64_t others = larger(1, in.sequences().count * in.groups);
    const int64_t wanted = smaller(larger(1, heads_per_group), ceil_div(wanted_tasks, others));
    heads_per_slab = larger(1, ceil_div(heads_per_group, wanted));
    slabs_per_group = larger(1, ceil_div(heads_per_group, heads_per_slab));  // one of no heads, if there are none
    slabs = in.groups * slabs_per_group;
  }

  Heads heads(int64_t slab) const {
    const int64_t group = slab / slabs_per_group, first = slab % slabs_per_group * heads_per_slab;
    return {group * heads_per_group + first, smaller(heads_per_slab, heads_per_group - first), group};
  }
};

// Some consecutive steps of one sequence in processing order, at most kSsdSteps.
struct SsdChunk {
  int64_t batch, time, sign, rows;  // row i is the step at time + i * sign

  SsdChunk(const SsdInputs& in, const Sequence& sequence, int64_t index) : batch(sequence.batch) {
    const int64_t begin = index * kSsdSteps;
    rows = smaller(kSsdSteps, sequence.steps - begin);
    sign = in.reverse ? -1 : 1;
    time = sequence.first + (in.reverse ? sequence.steps - 1 - begin : begin);
  }

  static int64_t count(const Sequence& sequence) { return ceil_div(sequence.steps, kSsdSteps); }

  // Its part of a (b, l, heads or groups, columns) tensor: rows are steps.
  Matrix rows_of(const SsdInputs& in, const View4& view, int64_t index, int64_t columns) const {
    if (view.data == nullptr) return {};  // an empty tensor: no address may be formed
    const int64_t offset = batch * view.stride_b + time * view.stride_l + index * view.stride_h;
    return {view.data + offset * size_of(in.dtype), sign * view.stride_l, view.stride_p, rows, columns};
  }

  // Its part of a (b, l, h) tensor: rows are heads, columns steps.
  Matrix steps_of(const SsdInputs& in, const View4& view, const Heads& heads) const {
    if (view.data == nullptr) return {};
    const int64_t offset = batch * view.stride_b + time * view.stride_l + heads.first * view.stride_h;
    return {view.data + offset * size_of(in.dtype), view.stride_h, sign * view.stride_l, heads.count, rows};
  }
};

// A head's part (p, n) of a tensor of states (sequences, h, p, n), as (n, p): rows are states, columns channels.
template <class F>
SSM_INLINE Matrix state_of(const SsdInputs& in, const void* states, int64_t sequence, int64_t head) {
  char* data = static_cast<char*>(const_cast<void*>(states));
  const int64_t offset = (sequence * in.heads + head) * in.channels * in.states;
  return {data + offset * static_cast<int64_t>(sizeof(F)), 1, in.states, in.states, in.channels};
}

// The transpose of the first rows and columns of a tile; what it does not fill is left as it is.
template <class F>
SSM_INLINE void transpose_tile(Tile<const F> from, int64_t rows, int64_t columns, Tile<F> to) {
  const Matrix m = {reinterpret_cast<char*>(const_cast<F*>(from.data)), 1, from.stride, columns, rows};
  read_matrix<F>(kComputeType<F>, m, to.data, to.stride);
}

// Scales rows of whole vectors: to[i] = factors[i] from[i].
template <class F>
SSM_INLINE void scale_rows(const F* factors, Tile<const F> from, Tile<F> to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < columns; k += kWidth<F>) store(to.row(i) + k, factors[i] * load<F>(from.row(i) + k));
  }
}

template <class F>
SSM_INLINE void scale(F factor, F* data, int64_t count) {
  for (int64_t k = 0; k < count; k += kWidth<F>) store(data + k, factor * load<F>(data + k));
}

// The skip D of one head, one number per channel.
template <class F>
SSM_INLINE void read_skip(const SsdInputs& in, int64_t head, F* skip) {
  const F* D = static_cast<const F*>(in.D);
  for (int64_t k = 0; k < in.channels; ++k)
    skip[k] = D == nullptr ? F(0) : in.D_per_channel ? D[head * in.channels + k] : D[head];
}

}  // namespace ssm::SSM_ISA
