#include "simulator.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace ssm::simulator {

uint3 thread_index, block_index;
dim3 block_size, grid_size;

namespace {

constexpr size_t kStackBytes = 512 << 10;
constexpr size_t kGuardBytes = 64;

struct Copy {
  char* to;
  const char* from;
  int size, bytes_read;
};

enum class Wait { none, barrier, warp, ended };

struct Fiber {
  jmp_buf here;
  bool started = false;
  Wait wait = Wait::none;
  unsigned mask = 0;  // of the exchange it waits in
  int exchanges = 0;
  uint3 index;
  std::vector<Copy> uncommitted;
  std::vector<std::vector<Copy>> groups;
};

struct Warp {
  alignas(16) char places[2][32 * 16];
};

class Stacks {
 public:
  char* at(size_t index) {
    while (stacks_.size() <= index) {
      void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) throw std::runtime_error("simulator: no memory for a thread's stack");
      stacks_.push_back(static_cast<char*>(stack));
    }
    return stacks_[index];
  }

 private:
  std::vector<char*> stacks_;
};

bool run_backwards = false;
std::mutex one_launch;
Stacks stacks;
std::vector<Fiber> fibers;
size_t n_threads = 0;  // of a block; the first so many fibers run it
std::vector<Warp> warps;
std::unique_ptr<char, decltype(&std::free)> shared(nullptr, &std::free);
const std::function<void()>* thread_function = nullptr;
Fiber* running = nullptr;
jmp_buf scheduler;
ucontext_t scheduler_context;

unsigned rank_of(const Fiber& fiber) { return unsigned(&fiber - fibers.data()); }

void fail(const std::string& what) { throw std::runtime_error("simulator: " + what); }

// Back to the scheduler until it resumes this thread.  The running thread must not be named after the jump.
void pause(Wait wait) {
  running->wait = wait;
  if (_setjmp(running->here) == 0) _longjmp(scheduler, 1);
}

// A fiber runs one thread of block after block.
void fiber_main() {
  for (;;) {
    (*thread_function)();
    pause(Wait::ended);
  }
}

void resume(Fiber& fiber) {
  running = &fiber;
  thread_index = fiber.index;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stacks.at(rank_of(fiber));
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  swapcontext(&scheduler_context, &context);
}

// Lets the lanes of one warp go on whose exchange is complete.
bool release_warp(size_t first, size_t last) {
  bool any = false;
  for (size_t i = first; i < last; ++i) {
    if (fibers[i].wait != Wait::warp) continue;
    const unsigned mask = fibers[i].mask;
    bool complete = true;
    for (size_t lane = 0; lane < last - first; ++lane) {
      const Fiber& other = fibers[first + lane];
      if ((mask >> lane & 1) == 0 || other.wait == Wait::ended) continue;
      complete = complete && other.wait == Wait::warp && other.mask == mask && other.exchanges == fibers[i].exchanges;
    }
    if (!complete) continue;
    for (size_t lane = 0; lane < last - first; ++lane)
      if (mask >> lane & 1 && fibers[first + lane].wait == Wait::warp) fibers[first + lane].wait = Wait::none;
    any = true;
  }
  return any;
}

bool release() {
  bool any = false, all_at_barrier = true;
  for (size_t first = 0; first < n_threads; first += 32)
    any = release_warp(first, std::min(first + 32, n_threads)) || any;
  for (size_t i = 0; i < n_threads; ++i)
    all_at_barrier = all_at_barrier && (fibers[i].wait == Wait::barrier || fibers[i].wait == Wait::ended);
  if (!all_at_barrier) return any;
  for (size_t i = 0; i < n_threads; ++i)
    if (fibers[i].wait == Wait::barrier) fibers[i].wait = Wait::none, any = true;
  return any;
}

void run_block() {
  for (;;) {
    size_t ended = 0;
    for (size_t i = 0; i < n_threads; ++i) {
      Fiber& fiber = fibers[run_backwards ? n_threads - 1 - i : i];
      if (fiber.wait == Wait::none) resume(fiber);
    }
    for (size_t i = 0; i < n_threads; ++i) ended += fibers[i].wait == Wait::ended;
    if (ended == n_threads) return;
    if (release()) continue;
    for (Fiber& fiber : fibers) fiber.started = false;  // what is on their stacks is abandoned
    fail("threads wait for each other: some are at a barrier or shuffle that others never reach");
  }
}

void prepare_block(dim3 block, size_t shared_bytes) {
  n_threads = size_t(block.x) * block.y * block.z;
  if (fibers.size() < n_threads) fibers.resize(n_threads);
  warps.resize((n_threads + 31) / 32);
  for (size_t i = 0; i < n_threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    fiber.wait = Wait::none, fiber.exchanges = 0;
    fiber.uncommitted.clear(), fiber.groups.clear();
  }
  std::memset(shared.get(), 0xff, shared_bytes);  // NaN in every float type
  std::memset(shared.get() + shared_bytes, 0x5a, kGuardBytes);
}

void check_launch(dim3 grid, dim3 block, size_t shared_bytes) {
  const size_t threads = size_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) fail("a block of " + std::to_string(threads) + " threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("an empty grid");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) fail("the grid is too large");
  if (shared_bytes > kMostSharedBytes) fail(std::to_string(shared_bytes) + " bytes of shared memory");
}

}  // namespace

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  check_launch(grid, block, shared_bytes);
  const std::lock_guard<std::mutex> lock(one_launch);
  grid_size = grid, block_size = block, thread_function = &thread;
  shared.reset(static_cast<char*>(std::aligned_alloc(128, (shared_bytes + kGuardBytes + 127) / 128 * 128)));
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        prepare_block(block, shared_bytes);
        run_block();
        for (size_t i = 0; i < kGuardBytes; ++i)
          if (shared.get()[shared_bytes + i] != 0x5a) fail("a write past the end of shared memory");
      }
}

char* shared_memory() { return shared.get(); }
void set_backwards(bool backwards) { run_backwards = backwards; }
void barrier() { pause(Wait::barrier); }

void mistake(const char* what) {
  std::fprintf(stderr, "simulator: %s\n", what);
  std::abort();
}

const char* exchange(unsigned mask, const void* value, int size) {
  const unsigned rank = rank_of(*running), lane = rank & 31;
  if ((mask >> lane & 1) == 0) mistake("a lane takes part in a shuffle whose mask leaves it out");
  char* places = warps[rank / 32].places[running->exchanges++ & 1];
  if (size > 0) std::memcpy(places + 16 * lane, value, size_t(size));
  running->mask = mask;
  pause(Wait::warp);
  return places;
}

void copy_async(void* shared_address, const void* global, int size, int bytes_read) {
  running->uncommitted.push_back({static_cast<char*>(shared_address), static_cast<const char*>(global), size, bytes_read});
}

void commit_copies() {
  running->groups.push_back(std::move(running->uncommitted));
  running->uncommitted.clear();
}

void wait_for_copies(int groups_left) {
  while (int(running->groups.size()) > groups_left) {
    for (const Copy& copy : running->groups.front()) {
      std::memset(copy.to, 0, size_t(copy.size));
      std::memcpy(copy.to, copy.from, size_t(copy.bytes_read));
    }
    running->groups.erase(running->groups.begin());
  }
}

}  // namespace ssm::simulator
