#include "cpu/large_pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ssm {

namespace {
constexpr uintptr_t kLargePage = uintptr_t{1} << 21;
// Below, memory is likely to be reused by the allocator and its pages to be there.
constexpr int64_t kWorthwhile = int64_t{1} << 25;
}  // namespace

void prefer_large_pages(const View3& output, int64_t batch, int64_t steps, int64_t channels, int64_t element_bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const int64_t bytes = batch * steps * channels * element_bytes;
  const bool contiguous =
      output.stride_d == 1 && output.stride_l == channels && (batch == 1 || output.stride_b == steps * channels);
  if (output.data == nullptr || !contiguous || bytes < kWorthwhile) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(output.data);
  const uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) / kLargePage * kLargePage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // refused or not, the pages are usable
#else
  (void)output, (void)batch, (void)steps, (void)channels, (void)element_bytes;
#endif
}

}  // namespace ssm
