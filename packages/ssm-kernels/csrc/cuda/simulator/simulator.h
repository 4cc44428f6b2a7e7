// Runs CUDA kernels on the host, one thread of a block after the other, each on a stack of its own.  For tests: whole
// kernels, barriers, shuffles and asynchronous copies included, without a GPU and under the usual sanitizers.
//
// What it finds: wrong values, reads of shared memory nothing wrote (it starts as NaN), writes past the shared memory
// asked for, threads that disagree on a barrier or a shuffle, asynchronous copies that were not waited for (a copy
// happens when its thread waits for it), and, because threads can run in either order, most missing barriers.  What it
// cannot find: wrong PTX, and what only threads that really run at the same time show.
#pragma once

#include <cstddef>
#include <functional>

#include "cuda_runtime.h"

namespace ssm::simulator {

constexpr size_t kMostSharedBytes = 227 << 10;  // of a block, as on sm_90

// Runs `thread` for every thread of the grid, block after block.  Throws std::runtime_error for a launch that CUDA would
// refuse and for the mistakes above.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

char* shared_memory();  // of the running block

// cp.async: copies when the thread waits for its group.  bytes_read of the source, zeros up to `size`.
void copy_async(void* shared, const void* global, int size, int bytes_read);
void commit_copies();
void wait_for_copies(int groups_left);

// Ends the process with a message: for mistakes of one thread, on whose stack nothing can be thrown.
[[noreturn]] void mistake(const char* what);

// Whether threads run from the last to the first: tests run in both orders.
void set_backwards(bool backwards);

}  // namespace ssm::simulator
