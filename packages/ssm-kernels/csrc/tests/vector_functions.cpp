// Compiled once per instruction set, under the rules of cpu/operators.h: no templates of the standard library here.
#include "tests/vector_functions.h"

#include "cpu/tile.h"
#include "cpu/vec_math.h"
#include "cpu/vec_trig.h"

namespace ssm::SSM_ISA {
namespace {

template <class F, class Function>
void map(const F* x, F* y, int64_t count, Function function) {
  for (int64_t i = 0; i < count; i += kWidth<F>) SSM_ISA::store(y + i, function(SSM_ISA::load<F>(x + i)));
}

template <class F>
Vec<F> slope_of_softplus(Vec<F> x) {
  return softplus_and_slope<F>(x);
}

template <class F>
constexpr tests::MathFunctions<F> kMath = {
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return exp2<F>(v); }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return exp<F>(v); }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return log1p<F>(v); }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return sigmoid<F>(v); }); },
    [](const F* x, F* y, int64_t count) {
      map(x, y, count, [](Vec<F> v) { return sigmoid_and_complement<F>(v).complement; });
    },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return softplus<F>(v); }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return slope_of_softplus<F>(v); }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return near_sin_cos<F>(v).sin; }); },
    [](const F* x, F* y, int64_t count) { map(x, y, count, [](Vec<F> v) { return near_sin_cos<F>(v).cos; }); },
};

void load(DType dtype, const uint16_t* from, float* to, int64_t count) {
  with_storage<float>(dtype, [&](auto s) {
    for (int64_t i = 0; i < count; i += kWidth<float>)
      SSM_ISA::store(to + i, decltype(s)::load(reinterpret_cast<const char*>(from + i)));
  });
}

void load_one(DType dtype, const uint16_t* from, float* to, int64_t count) {
  with_storage<float>(dtype, [&](auto s) {
    for (int64_t i = 0; i < count; ++i) to[i] = decltype(s)::load_one(reinterpret_cast<const char*>(from + i));
  });
}

void store(DType dtype, const float* from, uint16_t* to, int64_t count) {
  with_storage<float>(dtype, [&](auto s) {
    for (int64_t i = 0; i < count; i += kWidth<float>)
      decltype(s)::store(reinterpret_cast<char*>(to + i), SSM_ISA::load<float>(from + i));
  });
}

void store_one(DType dtype, const float* from, uint16_t* to, int64_t count) {
  with_storage<float>(dtype, [&](auto s) {
    for (int64_t i = 0; i < count; ++i) decltype(s)::store_one(reinterpret_cast<char*>(to + i), from[i]);
  });
}

template <class F>
void move(const tests::TileMove& m, bool read) {
  const Matrix matrix = {m.data, m.stride_row, m.stride_col, m.rows, m.cols};
  F* tile = static_cast<F*>(m.tile);
  if (read) return read_matrix<F>(m.dtype, matrix, tile, m.row_stride, m.block_stride);
  write_matrix<F>(m.dtype, matrix, tile, m.row_stride, m.block_stride);
}

void read(const tests::TileMove& m) { m.dtype == DType::f64 ? move<double>(m, true) : move<float>(m, true); }
void write(const tests::TileMove& m) { m.dtype == DType::f64 ? move<double>(m, false) : move<float>(m, false); }

template <class F>
void transpose_matrix(F* matrix) {
  Vec<F> v[kWidth<F>];
  for (int i = 0; i < kWidth<F>; ++i) v[i] = SSM_ISA::load<F>(matrix + i * kWidth<F>);
  transpose<F>(v);
  for (int i = 0; i < kWidth<F>; ++i) SSM_ISA::store(matrix + i * kWidth<F>, v[i]);
}

template <class F>
void sums_of_rows(const F* matrix, F* sums) {
  Vec<F> v[kWidth<F>];
  for (int i = 0; i < kWidth<F>; ++i) v[i] = SSM_ISA::load<F>(matrix + i * kWidth<F>);
  SSM_ISA::store(sums, sum_rows<F>(v));
}

}  // namespace

extern const tests::VectorFunctions vector_functions;
const tests::VectorFunctions vector_functions = {
    SSM_VECTOR_BYTES,         kMath<float>,           kMath<double>,        load,
    load_one,                 store,                  store_one,            read,
    write,                    transpose_matrix<float>, transpose_matrix<double>, sums_of_rows<float>,
    sums_of_rows<double>,
};

}  // namespace ssm::SSM_ISA
