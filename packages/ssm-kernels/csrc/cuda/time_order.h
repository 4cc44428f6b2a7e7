// In which order a scan visits the steps of a sequence.  Host and device, so that tests can ask it.
#pragma once

#include "params.h"

namespace ssm::cuda {

SSM_HOST_DEVICE inline int64_t clamped(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// The sequence `index`.  Offsets are device memory that no one has looked at: whatever they hold, the result lies
// within the steps of the tensor.
SSM_HOST_DEVICE inline Sequence sequence_at(const Sequences& sequences, int64_t index) {
  if (!sequences.packed()) return sequences.at(index);
  const int64_t first = clamped(sequences.offsets[index], 0, sequences.steps);
  return {index, 0, first, clamped(sequences.offsets[index + 1], first, sequences.steps) - first};
}

// The first checkpoint of a sequence from sequence_at, like first_scan_chunk.
SSM_HOST_DEVICE inline int64_t first_checkpoint(const Sequences& sequences, const Sequence& sequence) {
  if (sequences.packed()) return sequence.first / kScanChunk + sequence.index;
  return sequence.index * ((sequences.steps + kScanChunk - 1) / kScanChunk);
}

// Step k of a sequence, in the order of time, is the step position(k) of its tensors.
struct TimeOrder {
  int64_t first, steps;  // of the sequence
  int64_t columns;       // 0, or the width of the image whose columns time runs down
  bool reverse;

  SSM_HOST_DEVICE TimeOrder(const ScanInputs& in, const Sequence& sequence)
      : first(sequence.first), steps(sequence.steps), columns(in.columns), reverse(in.reverse) {}

  SSM_HOST_DEVICE int64_t position(int64_t step) const {
    const int64_t time = reverse ? steps - 1 - step : step;
    if (columns == 0) return first + time;
    const int64_t height = steps / columns;
    return first + time % height * columns + time / height;
  }

  // Whether step k + 1 follows step k in memory.
  SSM_HOST_DEVICE bool forward() const { return !reverse && columns == 0; }
};

}  // namespace ssm::cuda
