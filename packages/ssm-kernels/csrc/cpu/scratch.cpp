#include "cpu/scratch.h"

#include <new>

namespace ssm {

namespace {
constexpr std::align_val_t kAlignment{64};
}

void* allocate_scratch(int64_t bytes) { return ::operator new(static_cast<size_t>(bytes), kAlignment); }

void free_scratch(void* block) noexcept { ::operator delete(block, kAlignment); }

}  // namespace ssm
