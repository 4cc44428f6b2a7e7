// Scratch memory: blocks that a thread keeps must never be handed out twice, nor be too small.
#include "cpu/scratch.h"

#include <cstring>
#include <thread>
#include <vector>

#include "tests/check.h"

namespace ssm::tests {
namespace {

struct Block {
  unsigned char* data;
  int64_t bytes;
  unsigned char mark;
};

bool holds_its_mark(const Block& block) {
  for (int64_t i = 0; i < block.bytes; ++i)
    if (block.data[i] != block.mark) return false;
  return true;
}

// Blocks of all sizes come and go, some above what is kept; each is filled while it is held.
void test_blocks_do_not_overlap(uint64_t seed) {
  Random random(seed);
  std::vector<Block> held;
  for (int i = 0; i < 2000; ++i) {
    if (held.size() < 5 && random.chance(60)) {
      const int64_t bytes = random.chance(1) ? (int64_t{1} << 23) + random.below(5000) : random.below(20000);
      auto* data = static_cast<unsigned char*>(allocate_scratch(bytes));
      CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
      held.push_back({data, bytes, static_cast<unsigned char>(i)});
      std::memset(data, held.back().mark, static_cast<size_t>(bytes));
    } else if (!held.empty()) {
      const auto chosen = held.begin() + random.below(static_cast<int64_t>(held.size()));
      CHECK(holds_its_mark(*chosen));
      free_scratch(chosen->data);
      held.erase(chosen);
    }
  }
  for (const Block& block : held) free_scratch(block.data);
}

// A block may be freed by another thread, which then keeps it.
void test_a_block_of_another_thread() {
  void* block = nullptr;
  std::thread([&] { block = allocate_scratch(1000); }).join();
  std::memset(block, 1, 1000);
  free_scratch(block);
  test_blocks_do_not_overlap(3);
}

}  // namespace
}  // namespace ssm::tests

int main() {
  using namespace ssm::tests;
  test_blocks_do_not_overlap(1);
  std::thread beside([] { test_a_block_of_another_thread(); });
  beside.join();
  test_a_block_of_another_thread();
  return report();
}
