// The functions that kernels are made of, of one instruction set, on arrays.  Counts are multiples of 16.
#pragma once

#include <cstdint>

#include "params.h"

namespace ssm::tests {

template <class F>
struct MathFunctions {
  using Unary = void (*)(const F* x, F* y, int64_t count);
  Unary exp2, exp, log1p, sigmoid, complement, softplus, softplus_slope, sin, cos;
};

// A matrix in a tensor and its packed copy; see cpu/tile.h.
struct TileMove {
  DType dtype;
  char* data;
  int64_t stride_row, stride_col, rows, cols;
  void* tile;
  int64_t row_stride, block_stride;
};

struct VectorFunctions {
  int64_t vector_bytes;
  MathFunctions<float> f32;
  MathFunctions<double> f64;
  // 16-bit storage: as vectors, and one by one.
  void (*load)(DType dtype, const uint16_t* from, float* to, int64_t count);
  void (*load_one)(DType dtype, const uint16_t* from, float* to, int64_t count);
  void (*store)(DType dtype, const float* from, uint16_t* to, int64_t count);
  void (*store_one)(DType dtype, const float* from, uint16_t* to, int64_t count);
  void (*read)(const TileMove& move);
  void (*write)(const TileMove& move);
  // Of square matrices, width x width, in place; sums of the rows.
  void (*transpose_f32)(float* matrix);
  void (*transpose_f64)(double* matrix);
  void (*sum_rows_f32)(const float* matrix, float* sums);
  void (*sum_rows_f64)(const double* matrix, double* sums);
};

}  // namespace ssm::tests

// Defined once per instruction set by vector_functions.cpp.
namespace ssm::generic {
extern const tests::VectorFunctions vector_functions;
}
namespace ssm::baseline {
extern const tests::VectorFunctions vector_functions;
}
namespace ssm::avx2 {
extern const tests::VectorFunctions vector_functions;
}
namespace ssm::avx512 {
extern const tests::VectorFunctions vector_functions;
}
