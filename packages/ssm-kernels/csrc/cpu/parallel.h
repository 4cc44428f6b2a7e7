// Runs independent tasks on several threads.
//
// The threads are those of the OpenMP runtime that torch has loaded, if there is one: a second pool would fight it for
// the cores while its idle threads spin.  The runtime is looked up by name when first needed; without it (and in a
// process forked after its threads were started, where they no longer exist) a pool of our own does the work.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ssm {

using TaskFunction = void (*)(void* context, int64_t task);

// Calls function(context, task) for task in [0, tasks), in any order, on up to num_threads threads; returns when all
// are done.  The first exception a task throws is rethrown here, and tasks not yet begun are then left out.
// A task must not call run_tasks itself.
void run_tasks(int64_t tasks, int num_threads, TaskFunction function, void* context);

// "gomp" or "own": what run_tasks would use now.
const char* parallel_backend();

// True: use our own pool even where an OpenMP runtime is loaded (tests).
void force_own_pool(bool forced);

}  // namespace ssm

#if defined(SSM_ISA)
namespace ssm::SSM_ISA {

// fn(task) for every task.  Lives in the namespace of the instruction set because it is instantiated there.
template <class Function>
inline void parallel_for(int64_t tasks, int num_threads, Function&& fn) {
  using Plain = typename std::remove_reference<Function>::type;
  run_tasks(
      tasks, num_threads, [](void* context, int64_t task) { (*static_cast<Plain*>(context))(task); },
      const_cast<void*>(static_cast<const void*>(&fn)));
}

}  // namespace ssm::SSM_ISA
#endif
