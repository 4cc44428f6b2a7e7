// What the machine can do at best, to compare the operators with: loops that do one thing and nothing else.
#pragma once

#include <cstdint>

namespace ssm {

enum class LimitLoop : int32_t {
  multiply_add,     // x = x * y + z in registers
  exponential,      // 2^x of numbers in the first-level cache, as the scan computes it
  triad,            // a = b + s c over arrays in memory
  triad_streaming,  // the same with stores past the caches, where the instruction set has them
};

// One round of one loop, in float; whoever calls it measures the time.  A round takes milliseconds, so that handing out
// its tasks does not count.
struct LimitRound {
  LimitLoop loop = LimitLoop::multiply_add;
  int32_t num_threads = 1;
  // The arrays of the triads, 64-byte aligned; count is a multiple of 64.
  float* a = nullptr;
  const float* b = nullptr;
  const float* c = nullptr;
  int64_t count = 0;
};

}  // namespace ssm
