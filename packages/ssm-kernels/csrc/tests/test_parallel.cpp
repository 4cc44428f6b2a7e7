// run_tasks with our own pool: this executable has no OpenMP runtime.
#include "cpu/parallel.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "tests/check.h"

namespace ssm::tests {
namespace {

// How often each task ran.
struct Counts {
  explicit Counts(int64_t tasks) : ran(static_cast<size_t>(tasks)) {}
  std::vector<std::atomic<int>> ran;
  int64_t failing_task = -1;

  static void run(void* context, int64_t task) {
    Counts& counts = *static_cast<Counts*>(context);
    counts.ran[static_cast<size_t>(task)].fetch_add(1);
    if (task == counts.failing_task) throw std::runtime_error("task failed");
  }
  bool each_once() const {
    for (const std::atomic<int>& count : ran)
      if (count.load() != 1) return false;
    return true;
  }
};

bool run_counted(int64_t tasks, int num_threads) {
  Counts counts(tasks);
  run_tasks(tasks, num_threads, Counts::run, &counts);
  return counts.each_once();
}

void test_every_task_runs_once() {
  for (int round = 0; round < 50; ++round)
    for (int64_t tasks : {0, 1, 2, 3, 1000})
      for (int num_threads : {0, 1, 2, 3, 7}) {
        context = std::to_string(tasks) + " tasks, " + std::to_string(num_threads) + " threads";
        CHECK(run_counted(tasks, num_threads));
      }
}

void test_first_error_is_rethrown() {
  for (int num_threads : {1, 3}) {
    context = std::to_string(num_threads) + " threads";
    Counts counts(1000);
    counts.failing_task = 5;
    std::string caught;
    try {
      run_tasks(1000, num_threads, Counts::run, &counts);
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    CHECK(caught == "task failed");
    CHECK(counts.ran[5] == 1);
    CHECK(run_counted(1000, num_threads));  // the pool goes on
  }
}

void test_callers_at_the_same_time() {
  context = "three callers";
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) right += run_counted(50, 3);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(right == 300);
}

#if !defined(_WIN32)
// The child has none of the threads of its parent's pool, and makes its own.
void test_after_fork() {
  context = "after a fork";
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) _exit(run_counted(1000, 3) && run_counted(1000, 3) ? 0 : 1);
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(run_counted(1000, 3));
}

// A fork while another thread runs tasks must not leave a locked pool to the child.  That thread allocates nothing: the
// allocators of the sanitizers do leave locked what was locked.
void test_fork_beside_a_caller() {
  std::atomic<bool> stop{false};
  std::thread caller([&] {
    while (!stop) run_tasks(20, 3, [](void*, int64_t) {}, nullptr);
  });
  for (int i = 0; i < 20; ++i) test_after_fork();
  stop = true;
  caller.join();
}
#endif

}  // namespace
}  // namespace ssm::tests

int main() {
  using namespace ssm::tests;
  CHECK(std::strcmp(ssm::parallel_backend(), "own") == 0);
  test_every_task_runs_once();
  test_first_error_is_rethrown();
  test_callers_at_the_same_time();
#if !defined(_WIN32)
  test_after_fork();
  test_fork_beside_a_caller();
#endif
  return report();
}
