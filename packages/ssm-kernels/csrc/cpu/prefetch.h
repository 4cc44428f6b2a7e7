// Asks for the memory that a walk over matrices needs next while the current matrices are worked on: their rows lie in
// different pages, where the prefetchers of the hardware lose track.
#pragma once

#include "cpu/tile.h"

namespace ssm::SSM_ISA {

constexpr int64_t kLineBytes = 64;

// Bytes that follow each other in memory.
struct ByteRange {
  const char *begin, *end;
};

// A position in a list of ranges.  Inner loops work on a copy of it and write that back when they are done.
struct Prefetch {
  const ByteRange* next = nullptr;
  const ByteRange* end = nullptr;
  int64_t per_step = 0;

  // Asks for the next few ranges; called once per step of an inner loop.
  SSM_INLINE void step() {
    const ByteRange* stop = end - next < per_step ? end : next + per_step;
    for (; next != stop; ++next)
      for (const char* line = next->begin; line < next->end; line += kLineBytes) SSM_PREFETCH(line);
  }
};

// The rows, or columns, of a few matrices.
class PrefetchList {
 public:
  void clear() { size_ = 0; }

  // A matrix without an axis along which it is contiguous is left out, and so is what exceeds the list.
  void add(DType dtype, const Matrix& m) {
    const int64_t size = size_of(dtype);
    if (m.stride_col == 1) {
      add_ranges(m.data, m.stride_row * size, m.rows, m.cols * size);
    } else if (m.stride_row == 1 || m.stride_row == -1) {
      const int64_t lowest = m.stride_row < 0 ? 1 - m.rows : 0;
      add_ranges(m.data + lowest * size, m.stride_col * size, m.cols, m.rows * size);
    }
  }

  // To be asked for within this many steps.
  Prefetch over(int64_t steps) const { return {ranges_, ranges_ + size_, steps > 0 ? (size_ + steps - 1) / steps : 0}; }

 private:
  static constexpr int64_t kMostRanges = 512;

  void add_ranges(const char* first, int64_t stride, int64_t count, int64_t bytes) {
    const int64_t fitting = count < kMostRanges - size_ ? count : kMostRanges - size_;
    ByteRange* to = ranges_ + size_;
    for (int64_t i = 0; i < fitting; ++i) {
      const char* begin = first + i * stride;
      // Whole lines, so that the last byte's is among those that step() walks over.
      to[i] = {begin - reinterpret_cast<uintptr_t>(begin) % kLineBytes, begin + bytes};
    }
    size_ += fitting;
  }

  ByteRange ranges_[kMostRanges];
  int64_t size_ = 0;
};

}  // namespace ssm::SSM_ISA
