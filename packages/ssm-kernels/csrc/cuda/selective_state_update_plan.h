// How one decode step of the selective scan is dealt to a GPU.
//
// A few neighbouring lanes share a channel, each with a vector of its states at a time; the lanes of a block hold
// channels of one head of one batch index, so that the rows of B and C are the same for all of them.
#pragma once

#include <cstdint>

#include "selective_state_update_params.h"

namespace ssm::cuda {

constexpr int kStateUpdateThreads = 128;

struct StateUpdatePlan {
  int vector = 1;  // states per access to memory
  int lanes = 1;   // per channel, a power of two
  int64_t blocks_per_head = 0;
  int64_t blocks = 0;

  int channels_per_block() const { return kStateUpdateThreads / lanes; }
};

// Whether the vectors of states lie in aligned memory: n has stride 1, and the other strides and the address are
// multiples of four numbers.
inline bool has_vectors(const UpdateView& v) {
  const int64_t address = static_cast<int64_t>(reinterpret_cast<intptr_t>(v.data));
  return v.stride_n == 1 && (v.stride_b | v.stride_h | v.stride_p) % 4 == 0 && address % (4 * size_of(v.dtype)) == 0;
}

// Vectors are for float arithmetic on real states; one A for all states of a channel needs none.
inline bool fits_vectors(const StateUpdate& in) {
  return !in.complex_A && in.x.dtype != DType::f64 && in.states % 4 == 0 && has_vectors(in.state) &&
         has_vectors(in.B) && has_vectors(in.C) && (in.A.stride_n == 0 || has_vectors(in.A));
}

// channels_adjacent: the states of one channel lie apart, those of neighbouring channels next to each other; then a
// lane per channel reads whole lines.
inline StateUpdatePlan plan_state_update(int64_t batch, int64_t heads, int64_t channels, int64_t states, bool vectors,
                                         bool channels_adjacent) {
  StateUpdatePlan plan;
  if (vectors) plan.vector = 4;
  if (vectors || !channels_adjacent)
    while (plan.lanes < 32 && plan.lanes * plan.vector < states) plan.lanes *= 2;
  plan.blocks_per_head = (channels + plan.channels_per_block() - 1) / plan.channels_per_block();
  plan.blocks = batch * heads * plan.blocks_per_head;
  return plan;
}

}  // namespace ssm::cuda
