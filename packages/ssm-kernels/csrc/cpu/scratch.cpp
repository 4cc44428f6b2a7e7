#include "cpu/scratch.h"

#include <new>

namespace ssm {
namespace {

constexpr std::align_val_t kAlignment{64};

// Each thread keeps the largest of its blocks for its next tasks.  The allocator returns blocks of this size to the
// system now and then, and every page of a fresh one costs a fault (measured: thousands per forward pass of Vim-tiny).
constexpr int kSlots = 2;  // a kernel has one block for the whole call, and one for the task
#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kMostKept = -1;  // a kept block may be larger than what was asked for, and hide an overflow
#else
constexpr int64_t kMostKept = int64_t{1} << 23;
#endif

// In front of each block.
struct alignas(64) Header {
  int64_t bytes;
};

void give_back(Header* header) noexcept { ::operator delete(header, kAlignment); }

class Kept {
 public:
  ~Kept() {
    for (Header* header : slots_)
      if (header != nullptr) give_back(header);
  }

  // The smallest block that is large enough, or nullptr.
  Header* take(int64_t bytes) noexcept {
    Header** best = nullptr;
    for (Header*& slot : slots_) {
      if (slot != nullptr && slot->bytes >= bytes && (best == nullptr || slot->bytes < (*best)->bytes)) best = &slot;
    }
    if (best == nullptr) return nullptr;
    Header* const found = *best;
    *best = nullptr;
    return found;
  }

  // Keeps the block, or what is smaller makes room for it.
  void put(Header* header) noexcept {
    for (Header*& slot : slots_) {
      if (slot != nullptr && slot->bytes >= header->bytes) continue;
      Header* const smaller = slot;
      slot = header;
      if (smaller == nullptr) return;
      header = smaller;
    }
    give_back(header);
  }

 private:
  Header* slots_[kSlots] = {};
};

thread_local Kept kept;

}  // namespace

void* allocate_scratch(int64_t bytes) {
  Header* header = kept.take(bytes);
  if (header == nullptr) {
    header = static_cast<Header*>(::operator new(sizeof(Header) + static_cast<size_t>(bytes), kAlignment));
    header->bytes = bytes;
  }
  return header + 1;
}

void free_scratch(void* block) noexcept {
  Header* const header = static_cast<Header*>(block) - 1;
  if (header->bytes > kMostKept) return give_back(header);
  kept.put(header);
}

}  // namespace ssm
