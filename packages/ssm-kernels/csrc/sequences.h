// Which sequences a (b, l, d) tensor holds: one per batch index, or several laid end to end ("packed") in a batch of 1.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SSM_HOST_DEVICE __host__ __device__
#else
#define SSM_HOST_DEVICE
#endif

namespace ssm {

// Steps [first, first + steps) of one batch index.
struct Sequence {
  int64_t index;  // of its states
  int64_t batch, first, steps;
};

// Sequences have places on one common axis, each beginning where the one before ends; sequences may be empty.
struct Sequences {
  int64_t count = 0;
  int64_t steps = 0;                 // l
  const int64_t* offsets = nullptr;  // packed: sequence i has the steps [offsets[i], offsets[i + 1])

  SSM_HOST_DEVICE bool packed() const { return offsets != nullptr; }
  SSM_HOST_DEVICE int64_t place(int64_t index) const { return packed() ? offsets[index] : index * steps; }
  SSM_HOST_DEVICE Sequence at(int64_t index) const {
    if (packed()) return {index, 0, offsets[index], offsets[index + 1] - offsets[index]};
    return {index, index, 0, steps};
  }

  SSM_HOST_DEVICE int64_t total() const { return place(count); }

  // The first sequence with a step at `from` or later; empty ones count as if they had their place.
  int64_t first_from(int64_t from) const {
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (place(middle + 1) > from || place(middle) >= from) high = middle;
      else low = middle + 1;
    }
    return low;
  }
};

}  // namespace ssm
