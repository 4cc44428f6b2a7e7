// Sums of partial results in a fixed order, so that gradients are the same bits on every run without atomics.
//
// A sum has up to four axes of results; entry (i0, i1, i2, i3) is the sum over t of
// partials[t * term_stride + i0 * partial_stride[0] + ...].  Without terms it is 0.  All sums of a call are one launch.
#pragma once

#include "cuda/launch.h"
#include "cuda/numbers.h"

namespace ssm::cuda {

struct PartialSum {
  const char* partials = nullptr;
  int64_t terms = 0, term_stride = 0;
  int64_t size[4] = {1, 1, 1, 1};
  int64_t partial_stride[4] = {};
  char* out = nullptr;
  int64_t out_stride[4] = {};
  DType dtype = DType::f32;  // of out
  bool add = false;          // to what is there

  int64_t results() const { return size[0] * size[1] * size[2] * size[3]; }
};

constexpr int kMostPartialSums = 25;
constexpr int kSumThreads = 256;
constexpr int kSumRows = 8;  // threads that share one long sum
constexpr int64_t kLongSum = 16;

struct PartialSums {
  PartialSum sums[kMostPartialSums];
  int64_t first_block[kMostPartialSums + 1] = {};
  int32_t count = 0;
  bool wide = false;  // the partials are double

  SSM_HOST_DEVICE static int rows(const PartialSum& sum) { return sum.terms >= kLongSum ? kSumRows : 1; }

  void add(const PartialSum& sum) {
    if (sum.out == nullptr || sum.results() == 0) return;
    if (count == kMostPartialSums) throw std::logic_error("too many sums for one launch");
    sums[count] = sum;
    first_block[count + 1] = first_block[count] + divide_up(sum.results(), kSumThreads / rows(sum));
    ++count;
  }
};

// The sum of every kSumRows-th term from `first` on, or of all terms.
template <class F>
__device__ __forceinline__ F sum_terms(const PartialSum& sum, int64_t offset, int first, int rows) {
  const F* terms = reinterpret_cast<const F*>(sum.partials) + offset;
  F total = 0;
#pragma unroll 4
  for (int64_t t = first; t < sum.terms; t += rows) total += terms[t * sum.term_stride];
  return total;
}

template <class F>
__global__ void __launch_bounds__(kSumThreads) add_partials(PartialSums p) {
  int which = 0;
  while (which + 1 < p.count && int64_t(blockIdx.x) >= p.first_block[which + 1]) ++which;
  const PartialSum& sum = p.sums[which];
  const int rows = PartialSums::rows(sum), columns = kSumThreads / rows;
  const int row = int(threadIdx.x) / columns;
  const int64_t index = (int64_t(blockIdx.x) - p.first_block[which]) * columns + int(threadIdx.x) % columns;
  const bool present = index < sum.size[0] * sum.size[1] * sum.size[2] * sum.size[3];
  int64_t rest = present ? index : 0, from = 0, to = 0;
#pragma unroll
  for (int axis = 3; axis >= 0; --axis) {
    const int64_t at = axis == 0 ? rest : rest % sum.size[axis];
    rest = axis == 0 ? 0 : rest / sum.size[axis];
    from += at * sum.partial_stride[axis];
    to += at * sum.out_stride[axis];
  }
  F total = sum_terms<F>(sum, from, row, rows);
  if (rows > 1) {
    F* shared = shared_memory<F>();
    shared[threadIdx.x] = total;
    __syncthreads();
    if (row == 0)
      for (int other = 1; other < rows; ++other) total += shared[other * columns + threadIdx.x];
  }
  if (!present || row > 0) return;
  if (sum.add) total += load<F>(sum.out, to, sum.dtype);
  store<F>(sum.out, to, sum.dtype, total);
}

inline void launch_sums(const PartialSums& sums, const CudaCall& call) {
  LaunchShape shape;
  shape.grid = dim3(unsigned(sums.first_block[sums.count]));
  shape.block = dim3(kSumThreads);
  shape.shared_bytes = kSumThreads * int64_t(sums.wide ? sizeof(double) : sizeof(float));
  if (sums.wide) launch(add_partials<double>, shape, call, sums);
  else launch(add_partials<float>, shape, call, sums);
}

}  // namespace ssm::cuda
