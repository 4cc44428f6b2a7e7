// The functions that kernels are made of, for every instruction set: elementary functions over the whole range of floats,
// conversions of every 16-bit pattern, copies of small matrices.
#include <cmath>
#include <cstring>
#include <cstdlib>

#include "cpu/isa.h"
#include "tests/tensor.h"
#include "tests/vector_functions.h"

namespace ssm::tests {
namespace {

const VectorFunctions& functions_of(const std::string& isa) {
#if defined(SSM_HAS_generic)
  if (isa == "generic") return generic::vector_functions;
#endif
#if defined(SSM_HAS_avx2)
  if (isa == "avx2") return avx2::vector_functions;
  if (isa == "avx512") return avx512::vector_functions;
#endif
  return baseline::vector_functions;
}

// How far a function may be from the exact value.
struct Bound {
  double relative = 0;
  double absolute = 0;
};

template <class F>
struct MathTest {
  const char* name;
  typename MathFunctions<F>::Unary MathFunctions<F>::*function;
  long double (*exact)(long double);
  F low, high;  // the range it is meant for; what lies outside must be right as well where both are infinite
  Bound bound;
};

long double exact_sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }
long double exact_softplus(long double x) { return x > 20 ? x : std::log1p(std::exp(x)); }
long double exact_slope(long double x) { return x > 20 ? 1 : 1 / (1 + std::exp(-x)); }

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class F>
void test_math(const MathTest<F>& test, const MathFunctions<F>& functions, const std::vector<F>& points) {
  std::vector<F> x;
  for (F point : points)
    if (std::isnan(point) || (point >= test.low && point <= test.high)) x.push_back(point);
  x.resize((x.size() + 15) / 16 * 16, F(0.5));
  std::vector<F> y(x.size());
  (functions.*test.function)(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = -1;
  F worst_x = 0, worst_y = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double exact = test.exact(x[i]);
    const F rounded = static_cast<F>(exact);
    double excess = 0;
    if (std::isnan(x[i])) {
      excess = std::isnan(y[i]) ? 0 : INFINITY;
    } else if (std::isinf(rounded)) {
      // Results within the error of the largest number may be either.
      const bool near_largest = exact <= static_cast<long double>(std::numeric_limits<F>::max()) * 1.00001L;
      excess = y[i] == rounded || (near_largest && std::isfinite(y[i])) ? 0 : INFINITY;
    } else {
      const long double flushed = sizeof(F) == 4 ? 2.4e-38L : 4.5e-308L;  // below this a result may be 0
      const long double error = std::fabs(y[i] - exact);
      const long double slack = test.bound.relative * std::fabs(exact) + test.bound.absolute;
      excess = std::fabs(exact) <= flushed && error <= flushed ? 0 : static_cast<double>(error / slack);
      if (!(excess >= 0)) excess = INFINITY;  // y is NaN
      // Infinity a little too early is an error of the same size.
      if (std::isinf(y[i]) && exact >= static_cast<long double>(std::numeric_limits<F>::max()) * 0.99999L) excess = 0;
    }
    if (excess > worst) worst = excess, worst_x = x[i], worst_y = y[i];
  }
  char text[200];
  std::snprintf(text, sizeof text, "%s(%.17g) = %.17g: %.3g times the error allowed, over %zu points", test.name,
                double(worst_x), double(worst_y), worst, x.size());
  CHECK_MESSAGE(worst <= 1, text);
  if (std::getenv("SSM_TESTS_VERBOSE")) std::printf("    %s %s\n", context.c_str(), text);
}

// Floats of every exponent and sign, infinities and NaN; `stride` apart in their bits.
std::vector<float> all_floats(uint32_t stride) {
  std::vector<float> x = {0.0f, -0.0f, 1.0f, -1.0f, kInfinity, -kInfinity, NAN};
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += stride) {
    const uint32_t pattern = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &pattern, sizeof value);
    x.push_back(value);
  }
  return x;
}

// Moderate arguments, where the functions do their work, and doubles of every size.
std::vector<double> many_doubles(Random& random, int count) {
  std::vector<double> x = {0.0, -0.0, 1.0, -1.0, INFINITY, -INFINITY, NAN};
  for (int i = 0; i < count; ++i) {
    x.push_back(random.uniform(-40, 40));
    x.push_back(random.uniform(-1100, 1100));
    x.push_back(std::ldexp(random.uniform(-1, 1), static_cast<int>(random.below(2100)) - 1074));
  }
  return x;
}

template <class F>
std::vector<MathTest<F>> math_tests() {
  const bool is_float = sizeof(F) == 4;
  const F all = std::numeric_limits<F>::infinity(), far_angle = is_float ? F(12800) : F(1.6e6);
  const Bound relative = {is_float ? 3e-7 : 1e-15, 0}, angle = {0, is_float ? 1e-7 : 2.3e-16};
  using M = MathFunctions<F>;
  return {
      {"exp2", &M::exp2, [](long double x) { return std::exp2(x); }, -all, all, {is_float ? 1.8e-7 : 1e-15, 0}},
      {"exp", &M::exp, [](long double x) { return std::exp(x); }, -all, all, relative},
      {"log1p", &M::log1p, [](long double x) { return std::log1p(x); }, F(0), F(1e30), relative},
      {"sigmoid", &M::sigmoid, exact_sigmoid, -all, all, relative},
      {"1 - sigmoid", &M::complement, [](long double x) { return exact_sigmoid(-x); }, -all, all, relative},
      {"softplus", &M::softplus, exact_softplus, -all, all, relative},
      {"slope of softplus", &M::softplus_slope, exact_slope, -all, all, relative},
      {"sin", &M::sin, [](long double x) { return std::sin(x); }, -far_angle, far_angle, angle},
      {"cos", &M::cos, [](long double x) { return std::cos(x); }, -far_angle, far_angle, angle},
  };
}

bool same_float(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Every pattern widens exactly and narrows to itself; NaN stays NaN.  Vectors and single elements agree.
void test_every_pattern(const VectorFunctions& functions, DType dtype, int mantissa) {
  constexpr int64_t count = 65536;
  std::vector<uint16_t> bits(count), back(count), back_one(count);
  std::vector<float> wide(count), wide_one(count);
  for (int64_t i = 0; i < count; ++i) bits[size_t(i)] = static_cast<uint16_t>(i);
  functions.load(dtype, bits.data(), wide.data(), count);
  functions.load_one(dtype, bits.data(), wide_one.data(), count);
  functions.store(dtype, wide.data(), back.data(), count);
  functions.store_one(dtype, wide.data(), back_one.data(), count);
  int64_t wrong = 0;
  for (size_t i = 0; i < size_t(count); ++i) {
    const double exact = decode_half(bits[i], mantissa);
    if (std::isnan(exact)) {
      wrong += !std::isnan(wide[i]) || !std::isnan(wide_one[i]) || !std::isnan(decode_half(back[i], mantissa)) ||
               !std::isnan(decode_half(back_one[i], mantissa));
    } else {
      wrong += !same_float(wide[i], static_cast<float>(exact)) || !same_float(wide_one[i], wide[i]) ||
               back[i] != bits[i] || back_one[i] != bits[i];
    }
  }
  CHECK_MESSAGE(wrong == 0, std::to_string(wrong) + " of 65536 patterns do not survive widening and narrowing");
}

// Floats of all sizes are rounded to nearest even.
void test_rounding(const VectorFunctions& functions, DType dtype, int mantissa, std::vector<float> x) {
  for (int pattern = 0; pattern < 0x7fff; ++pattern) {  // halfway between neighbours, and just beside
    const double low = decode_half(uint16_t(pattern), mantissa), high = decode_half(uint16_t(pattern + 1), mantissa);
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const float middle = static_cast<float>((low + high) / 2);
    for (float near : {middle, std::nextafter(middle, kInfinity), std::nextafter(middle, 0.0f)})
      x.push_back(near), x.push_back(-near);
  }
  x.resize((x.size() + 15) / 16 * 16);
  const int64_t count = static_cast<int64_t>(x.size());
  std::vector<uint16_t> vectors(x.size()), ones(x.size());
  functions.store(dtype, x.data(), vectors.data(), count);
  functions.store_one(dtype, x.data(), ones.data(), count);
  int64_t wrong = 0;
  float example = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const uint16_t want = encode_half(x[i], mantissa);
    const bool nan = std::isnan(x[i]);
    for (uint16_t got : {vectors[i], ones[i]})
      if (nan ? !std::isnan(decode_half(got, mantissa)) : got != want) ++wrong, example = x[i];
  }
  char text[100];
  std::snprintf(text, sizeof text, "%lld floats are rounded wrongly, for instance %a", static_cast<long long>(wrong),
                static_cast<double>(example));
  CHECK_MESSAGE(wrong == 0, text);
}

template <class F>
void test_square(int64_t width, void (*transpose)(F*), void (*sum_rows)(const F*, F*)) {
  std::vector<F> matrix(size_t(width * width)), transposed, sums(static_cast<size_t>(width));
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<F>(i + 1);
  transposed = matrix;
  transpose(transposed.data());
  sum_rows(matrix.data(), sums.data());
  int64_t wrong = 0;
  for (int64_t i = 0; i < width; ++i) {
    F sum = 0;
    for (int64_t j = 0; j < width; ++j) {
      wrong += transposed[size_t(j * width + i)] != matrix[size_t(i * width + j)];
      sum += matrix[size_t(i * width + j)];
    }
    wrong += sums[size_t(i)] != sum;  // integers: exact in any order
  }
  CHECK_MESSAGE(wrong == 0, std::to_string(wrong) + " elements of a transposed matrix or sums of rows are wrong");
}

// A matrix of any strides into a packed tile and back; what lies beside it in the tile and the tensor stays.
void test_tile(const VectorFunctions& functions, Random& random) {
  const DType dtype = random.pick({DType::f32, DType::f64, DType::bf16, DType::f16});
  const int64_t rows = random.pick<int64_t>({0, 1, 3, 16, 17, 33}), cols = random.pick<int64_t>({1, 3, 16, 17, 33, 70});
  const int64_t width = functions.vector_bytes / (dtype == DType::f64 ? 8 : 4);
  const Layout layout = random_layout(random, 2);
  const Tensor matrix(dtype, {rows, cols}, layout, random.chance(50)), copy(dtype, {rows, cols});
  const int64_t blocks = (cols + width - 1) / width;
  // (blocks, rows, width) or (rows, blocks, width)
  const bool by_blocks = random.chance(50);
  const int64_t row_stride = by_blocks ? width : blocks * width, block_stride = by_blocks ? rows * width : width;
  const Tensor tile(compute_type(dtype), {rows * blocks * width});
  context += ", tile " + std::to_string(rows) + " x " + std::to_string(cols) + ", strides " +
             std::to_string(matrix.stride(0)) + ", " + std::to_string(matrix.stride(1)) + ", dtype " +
             std::to_string(static_cast<int>(dtype));
  matrix.fill(random, -1, 1);
  tile.fill(7);
  const TileMove move = {dtype,       matrix.data(), matrix.stride(0), matrix.stride(1), rows, cols,
                         tile.data(), row_stride,    block_stride};
  functions.read(move);
  int64_t wrong = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < blocks * width; ++col) {
      const double got = tile(row * row_stride + col / width * block_stride + col % width);
      wrong += got != (col < cols ? matrix(row, col) : 7);
    }
  CHECK_MESSAGE(wrong == 0, std::to_string(wrong) + " elements are wrong after reading");
  if (layout.repeated >= 0) return;  // not written to
  const Tensor back(dtype, {rows, cols}, layout, random.chance(50));
  back.fill(5);
  functions.write({dtype, back.data(), back.stride(0), back.stride(1), rows, cols, tile.data(), row_stride,
                   block_stride});
  wrong = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < cols; ++col) wrong += back(row, col) != matrix(row, col);
  CHECK_MESSAGE(wrong == 0, std::to_string(wrong) + " elements are wrong after writing");
}

void test_isa(const std::string& isa, uint32_t stride) {
  const VectorFunctions& functions = functions_of(isa);
  Random random(3);
  const std::vector<float> floats = all_floats(stride);
  const std::vector<double> doubles = many_doubles(random, static_cast<int>(4e8 / stride));
  context = isa + " float";
  for (const auto& test : math_tests<float>()) test_math(test, functions.f32, floats);
  context = isa + " double";
  for (const auto& test : math_tests<double>()) test_math(test, functions.f64, doubles);
  for (auto [dtype, mantissa] : {std::pair<DType, int>{DType::bf16, 7}, {DType::f16, 10}}) {
    context = isa + (mantissa == 7 ? " bf16" : " f16");
    test_every_pattern(functions, dtype, mantissa);
    test_rounding(functions, dtype, mantissa, floats);
  }
  context = isa;
  test_square<float>(functions.vector_bytes / 4, functions.transpose_f32, functions.sum_rows_f32);
  test_square<double>(functions.vector_bytes / 8, functions.transpose_f64, functions.sum_rows_f64);
  for (int i = 0; i < 500; ++i) {
    context = isa;
    test_tile(functions, random);
  }
}

}  // namespace
}  // namespace ssm::tests

// The argument is the distance, in their bits, of the floats that are tried.
int main(int argc, char** argv) {
  const uint32_t stride = argc > 1 ? static_cast<uint32_t>(std::atoi(argv[1])) : 4099;
  for (const std::string& isa : ssm::available_isas()) ssm::tests::test_isa(isa, stride);
  return ssm::tests::report();
}
