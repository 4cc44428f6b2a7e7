// The simulator finds what it promises to find, and runs what is right.
#include "cuda/simulator/simulator.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/ptx.h"
#include "tests/check.h"
#include "tests/half.h"

namespace ssm::tests {
namespace {

using cuda::launch;
using cuda::LaunchShape;
using cuda::shared_memory;

bool refused(const LaunchShape& shape, void (*kernel)(float*), float* out, const std::string& part_of_message) {
  try {
    launch(kernel, shape, {}, out);
  } catch (const std::runtime_error& error) {
    return std::string(error.what()).find(part_of_message) != std::string::npos;
  }
  return false;
}

__global__ void count_threads(float* counts) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  counts[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

void test_every_thread_runs_once() {
  std::vector<float> counts(2 * 3 * 2 * 40 * 2, 0.f);
  launch(count_threads, {{2, 3, 2}, {20, 2, 2}}, {}, counts.data());
  for (float count : counts) CHECK(count == 1);
}

// The sum over the block by halves, for each thread; `kBarriers` as it should be.
template <bool kBarriers>
__global__ void sum_block(float* out) {
  float* sums = shared_memory<float>();
  const int i = int(threadIdx.x);
  sums[i] = float(i + 1);
  if (kBarriers) __syncthreads();
  for (int half = int(blockDim.x) / 2; half > 0; half /= 2) {
    if (i < half) sums[i] += sums[i + half];
    if (kBarriers) __syncthreads();
  }
  out[i] = sums[0];
}

bool sums_are_right(void (*kernel)(float*), bool backwards) {
  std::vector<float> out(128, 0.f);
  simulator::set_backwards(backwards);
  launch(kernel, {1, 128, 128 * 4}, {}, out.data());
  simulator::set_backwards(false);
  for (float sum : out)
    if (sum != 128 * 129 / 2) return false;
  return true;
}

void test_barriers() {
  for (bool backwards : {false, true}) CHECK(sums_are_right(sum_block<true>, backwards));
  CHECK(!sums_are_right(sum_block<false>, false));
  CHECK(!sums_are_right(sum_block<false>, true));
}

// For each lane, the lane that each kind of shuffle reads within groups of 8.
__global__ void shuffle_lanes(float* out) {
  const int lane = int(threadIdx.x) & 31;
  float* mine = out + 5 * threadIdx.x;
  mine[0] = float(__shfl_sync(~0u, lane, 3, 8));
  mine[1] = float(__shfl_xor_sync(~0u, lane, 5, 8));
  mine[2] = float(__shfl_up_sync(~0u, lane, 3, 8));
  mine[3] = float(__shfl_down_sync(~0u, lane, 3, 8));
  mine[4] = float(__shfl_xor_sync(~0u, double(lane), 16));
}

void test_shuffles() {
  std::vector<float> out(64 * 5);
  launch(shuffle_lanes, {1, 64}, {}, out.data());
  for (int thread = 0; thread < 64; ++thread) {
    const int lane = thread % 32, first = lane / 8 * 8;
    const float* mine = out.data() + 5 * thread;
    context = "lane " + std::to_string(lane);
    CHECK(mine[0] == float(first + 3));
    CHECK(mine[1] == float(lane ^ 5));
    CHECK(mine[2] == float(lane - 3 < first ? lane : lane - 3));
    CHECK(mine[3] == float(lane + 3 > first + 7 ? lane : lane + 3));
    CHECK(mine[4] == float(lane ^ 16));
  }
}

struct Copies {
  const float* from;
  float* to;
  bool wait;
};

// Two groups of copies, of which the first is waited for.
__global__ void copy_two_groups(Copies p) {
  float* shared = shared_memory<float>();
  cuda::copy_async<16>(shared, p.from, 12);
  cuda::commit_copies();
  cuda::copy_async<4>(shared + 4, p.from + 4);
  cuda::commit_copies();
  if (p.wait) cuda::wait_for_copies<1>();
  for (int i = 0; i < 5; ++i) p.to[i] = shared[i];
}

void test_asynchronous_copies() {
  alignas(16) const float from[5] = {1, 2, 3, 4, 5};
  float to[5];
  launch(copy_two_groups, {1, 1, 20}, {}, Copies{from, to, true});
  CHECK(to[0] == 1 && to[1] == 2 && to[2] == 3);
  CHECK(to[3] == 0);            // not read
  CHECK(std::isnan(to[4]));     // not waited for
  launch(copy_two_groups, {1, 1, 20}, {}, Copies{from, to, false});
  for (float x : to) CHECK(std::isnan(x));
}

__global__ void half_at_barrier(float*) {
  if (threadIdx.x < 16) __syncthreads();
  else __shfl_sync(~0u, 1, 0);
}

__global__ void end_before_barrier(float* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void write_past_the_end(float*) { shared_memory<float>()[10] = 1; }

void test_mistakes_are_found() {
  float out[64] = {};
  for (int round = 0; round < 2; ++round) {  // a failed launch leaves nothing behind
    CHECK(refused({1, 32}, half_at_barrier, out, "wait for each other"));
    CHECK(refused({1, 32, 40}, write_past_the_end, out, "past the end"));
    launch(end_before_barrier, {1, 64}, {}, &out[0]);
    CHECK(out[39] == 1 && out[40] == 0);
  }
}

void test_launches_that_cuda_refuses() {
  float out = 0;
  CHECK(refused({1, 1025}, end_before_barrier, &out, "1025 threads"));
  CHECK(refused({{1, 65536}, 32}, end_before_barrier, &out, "too large"));
  CHECK(refused({1, 32, 228 << 10}, end_before_barrier, &out, "shared memory"));
  launch(end_before_barrier, {0, 32}, {}, &out);  // nothing to do
  CHECK(out == 0);
}

bool same(float a, double b) { return std::isnan(a) ? std::isnan(b) : double(a) == b; }

void test_16_bit_numbers() {
  for (int bits = 0; bits < 65536; ++bits) {
    context = std::to_string(bits);
    CHECK(same(cuda::decode_f16(uint16_t(bits)), decode_half(uint16_t(bits), 10)));
    CHECK(same(cuda::decode_bf16(uint16_t(bits)), decode_half(uint16_t(bits), 7)));
  }
  for (int64_t i = 0; i < int64_t(1) << 32; i += 65521) {
    const float x = __uint_as_float(uint32_t(i));
    context = std::to_string(i);
    if (std::isnan(x)) {
      CHECK(std::isnan(cuda::decode_f16(cuda::encode_f16(x))) && std::isnan(cuda::decode_bf16(cuda::encode_bf16(x))));
      continue;
    }
    CHECK(cuda::encode_f16(x) == encode_half(x, 10));
    CHECK(cuda::encode_bf16(x) == encode_half(x, 7));
    if (std::isfinite(x)) CHECK(std::fabs(__uint_as_float(cuda::to_tf32(x)) - x) <= std::fabs(x) * 0x1p-11f + 0x1p-136f);
  }
}

}  // namespace
}  // namespace ssm::tests

int main() {
  using namespace ssm::tests;
  test_every_thread_runs_once();
  test_barriers();
  test_shuffles();
  test_asynchronous_copies();
  test_mistakes_are_found();
  test_launches_that_cuda_refuses();
  test_16_bit_numbers();
  return report();
}
