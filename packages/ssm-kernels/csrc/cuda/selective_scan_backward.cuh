// What the kernels of the scan's backward pass are given, and which part of the work a block has.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/selective_scan_backward_plan.h"
#include "cuda/time_order.h"

namespace ssm::cuda {

struct ScanBackwardLaunch {
  ScanBackward calls[kMostDirections];  // one per direction, alike in sizes and types
  ScanBackwardPlan plan;
  char* workspace = nullptr;
};

// The block's sequence and channels.
struct ScanSlab {
  int64_t slab, first, channels;
  int64_t direction;
  Sequence sequence;

  __device__ __forceinline__ ScanSlab(const ScanBackwardLaunch& p, int64_t block)
      : slab(block % p.plan.slabs.blocks), first(p.plan.slabs.first(slab)), channels(p.plan.slabs.count(slab)) {
    const Sequences sequences = p.calls[0].in.sequences();
    const int64_t outer = block / p.plan.slabs.blocks;
    direction = outer / sequences.count;
    sequence = sequence_at(sequences, outer % sequences.count);
  }

  // The first row (b = the sequence's, l = 0) of the sums over this slab's channels, of 2 n numbers per step.
  template <class F>
  __device__ __forceinline__ F* rows(const ScanBackwardLaunch& p) const {
    const ScanInputs& in = p.calls[0].in;
    return reinterpret_cast<F*>(p.workspace + p.plan.rows) +
           ((direction * p.plan.slabs.blocks + slab) * in.batch + sequence.batch) * in.steps * 2 * in.states;
  }

  // Where the sums of this sequence begin: a vector (d,), times `width`.
  template <class F>
  __device__ __forceinline__ F* sums(const ScanBackwardLaunch& p, int64_t place, int64_t width) const {
    const ScanInputs& in = p.calls[0].in;
    const int64_t row = direction * in.sequences().count + sequence.index;
    return reinterpret_cast<F*>(p.workspace + place) + row * in.channels * width;
  }
};

// e^(delta A)
template <class F, bool Complex>
struct Decay;

template <class F>
struct Decay<F, false> {
  F re;
  static __device__ __forceinline__ Decay of(F delta, const F* A) {
    return {exp2_of(delta * (A[0] * F(1.4426950408889634074)))};
  }
};

template <class F>
struct Decay<F, true> {
  F re, im;
  static __device__ __forceinline__ Decay of(F delta, const F* A) {
    const F size = exp2_of(delta * (A[0] * F(1.4426950408889634074)));
    const SinCos<F> turn = sin_cos_of_product(delta, A[1]);
    return {size * turn.cos, size * turn.sin};
  }
};

}  // namespace ssm::cuda
