#include "cpu/parallel.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
#endif

namespace ssm {
namespace {

// void GOMP_parallel(void (*fn)(void*), void* data, unsigned num_threads, unsigned flags): the entry point that GCC
// compiles `#pragma omp parallel` to.  LLVM's and Intel's runtimes offer it too.
using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

#if defined(_WIN32)
// Processes do not fork, and the OpenMP runtimes found there lack that entry point.  Never run so far.
using ProcessId = int;
ProcessId this_process() { return 1; }
int hold_during_fork(void (*)(), void (*)()) { return 0; }
GompParallel find_gomp_parallel() { return nullptr; }
#else
using ProcessId = pid_t;
ProcessId this_process() { return getpid(); }
int hold_during_fork(void (*lock)(), void (*unlock)()) { return pthread_atfork(lock, unlock, unlock); }
GompParallel find_gomp_parallel() { return reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel")); }
#endif

// One call of run_tasks, shared by the threads that work on it.
struct Job {
  int64_t tasks;
  TaskFunction function;
  void* context;
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  Job(int64_t tasks, TaskFunction function, void* context) : tasks(tasks), function(function), context(context) {}

  // Takes tasks until none is left.  Never throws: an exception must not leave a thread of the pool.
  void work() noexcept {
    try {
      for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) function(context, task);
    } catch (...) {
      next.store(tasks);
      std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }
};

void work_on_job(void* job) { static_cast<Job*>(job)->work(); }

// Threads that sleep between jobs.  One job at a time; a second caller runs its job on its own thread alone.
class Pool {
 public:
  void run(Job& job, int num_threads) {
    std::unique_lock<std::mutex> only_caller(callers_, std::try_to_lock);
    if (!only_caller.owns_lock()) {
      job.work();
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < num_threads - 1) {
        const int index = static_cast<int>(threads_.size());
        threads_.emplace_back([this, index] { serve(index); });
      }
      job_ = &job;
      helpers_ = num_threads - 1;
      busy_ = helpers_;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= helpers_ || job_ == nullptr) continue;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  int helpers_ = 0, busy_ = 0;
  uint64_t generation_ = 0;
};

// The pool of this process.  Pools are never destroyed: their threads sleep until the process ends, and after a fork
// the child cannot join threads it does not have.
Pool& own_pool() {
  static std::mutex mutex;
  static Pool* pool = nullptr;
  static ProcessId owner = 0;
  static const int at_fork = hold_during_fork([] { mutex.lock(); }, [] { mutex.unlock(); });
  (void)at_fork;
  std::lock_guard<std::mutex> lock(mutex);
  if (pool == nullptr || owner != this_process()) {
    pool = new Pool;
    owner = this_process();
  }
  return *pool;
}

std::atomic<bool> own_pool_forced{false};
std::atomic<ProcessId> gomp_owner{0};  // the process whose OpenMP threads we have used

GompParallel gomp_parallel() {
  static std::atomic<GompParallel> found{nullptr};
  if (own_pool_forced.load(std::memory_order_relaxed)) return nullptr;
  const ProcessId owner = gomp_owner.load(std::memory_order_relaxed);
  if (owner != 0 && owner != this_process()) return nullptr;  // forked: entering the runtime would wait for lost threads
  GompParallel entry = found.load(std::memory_order_relaxed);
  if (entry == nullptr) {  // asked again until found: torch may be imported later
    entry = find_gomp_parallel();
    found.store(entry, std::memory_order_relaxed);
  }
  return entry;
}

}  // namespace

void run_tasks(int64_t tasks, int num_threads, TaskFunction function, void* context) {
  Job job(tasks, function, context);
  if (tasks <= 1 || num_threads <= 1) {
    job.work();
  } else if (GompParallel entry = gomp_parallel()) {
    // Always the full team, even for fewer tasks: the runtime ends and restarts threads when the size changes.
    gomp_owner.store(this_process(), std::memory_order_relaxed);
    entry(work_on_job, &job, static_cast<unsigned>(num_threads), 0);
  } else {
    own_pool().run(job, num_threads);
  }
  if (job.error) std::rethrow_exception(job.error);
}

const char* parallel_backend() { return gomp_parallel() != nullptr ? "gomp" : "own"; }

void force_own_pool(bool forced) { own_pool_forced.store(forced, std::memory_order_relaxed); }

}  // namespace ssm
