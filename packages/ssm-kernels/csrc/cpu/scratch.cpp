#include "cpu/scratch.h"

#include <cstdlib>
#include <new>

namespace ssm {

void* allocate_scratch(int64_t bytes) {
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
  void* block = std::aligned_alloc(64, rounded == 0 ? 64 : rounded);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void free_scratch(void* block) noexcept { std::free(block); }

}  // namespace ssm
