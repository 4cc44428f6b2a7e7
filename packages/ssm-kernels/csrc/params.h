// Plain arguments of the operators: addresses, sizes and strides.  Shared by the bindings, the CPU and the CUDA kernels.
// Strides and sizes count elements and are 64-bit, so that tensors above 2^31 elements need no special case.
#pragma once

#include <cstdint>

#include "sequences.h"

namespace ssm {

// Storage types.  Arithmetic is float, and double where the storage is f64 ("compute type").
enum class DType : int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

SSM_HOST_DEVICE inline int64_t size_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

// Where a call runs on a GPU; not used by the CPU kernels.
struct CudaCall {
  int32_t device = 0;
  void* stream = nullptr;
  void* allocator = nullptr;  // of scratch memory: cuda::allocate
};

// A (b, l, d) tensor with any strides, 0 and negative included.  data == nullptr: the tensor is absent.
struct View3 {
  char* data = nullptr;
  int64_t stride_b = 0, stride_l = 0, stride_d = 0;
  DType dtype = DType::f32;
};

// B or C of the scan: (b, l, g, n) with any strides, or constant in time: contiguous (d, n) in the compute type.
// With complex A the strides count real numbers, and the imaginary part of an entry follows its real part.
struct CoefficientView {
  char* data = nullptr;
  int64_t groups = 0;  // 0: constant
  int64_t stride_b = 0, stride_l = 0, stride_g = 0, stride_n = 0;
  SSM_HOST_DEVICE bool variable() const { return groups > 0; }
};

// Inputs that the forward and the backward pass of the selective scan share.  Pointers without a view are contiguous
// and in the compute type: A (d, n), D and delta_bias (d,), states (b, d, n).
//
// With complex A all of A, B, C and the states are complex, each number stored as its real and its imaginary part.  The
// axis n then counts parts, 2 per state: n = (re 0, im 0, re 1, im 1, ...).
//
// Time need not follow the axis l.  With `columns` c > 0 the l steps are the rows of an image of c columns laid end to
// end, and time runs down one column after the other; `reverse` runs through either order backwards.
struct ScanInputs {
  int64_t batch = 0, steps = 0, channels = 0;
  int64_t states = 0;        // n: numbers in the state of one channel, even with complex A
  bool complex_A = false;
  const int64_t* offsets = nullptr;  // of packed sequences; nullptr: each batch index is one sequence
  int64_t packed_sequences = 0;
  DType dtype = DType::f32;  // of u, delta and z
  View3 u, delta, z;
  CoefficientView B, C;
  const void* A = nullptr;
  bool shared_decay = false;  // each row of a real A holds one number n times: the CPU saves exponentials
  const void* D = nullptr;
  const void* delta_bias = nullptr;
  const void* initial_state = nullptr;
  bool delta_softplus = false;
  bool reverse = false;  // time runs from the last step to the first
  int64_t columns = 0;
  int32_t num_threads = 1;
  CudaCall cuda;

  SSM_HOST_DEVICE Sequences sequences() const { return {offsets != nullptr ? packed_sequences : batch, steps, offsets}; }

  // Of variable B and C: that of u, or the compute type with complex A.
  SSM_HOST_DEVICE DType coefficient_dtype() const { return !complex_A || dtype == DType::f64 ? dtype : DType::f32; }
};

struct ScanForward {
  ScanInputs in;
  View3 y;
  bool add_to_y = false;        // y += instead of y =, before the gate
  double gate_factor = 1;       // y is multiplied by gate_factor silu(z); other values on the CPU alone
  void* final_state = nullptr;  // (b, d, n); nullptr: not wanted, in several directions
  void* checkpoints = nullptr;  // (chunks of all sequences, n, d), the state before each chunk; nullptr: not wanted
};

struct ScanBackward {
  ScanInputs in;
  View3 grad_y;
  const void* grad_final_state = nullptr;  // (b, d, n) or nullptr
  const void* checkpoints = nullptr;       // of the forward pass
  View3 grad_u, grad_delta, grad_z;
  bool add_to_grad_u = false, add_to_grad_z = false;  // += instead of =
  void* grad_A = nullptr;              // (d, n)
  CoefficientView grad_B, grad_C;      // same kind (variable or constant) as B and C
  void* grad_D = nullptr;              // (d,) or nullptr
  void* grad_delta_bias = nullptr;     // (d,) or nullptr
  void* grad_initial_state = nullptr;  // (b, d, n) or nullptr
};

// Directions that are run at once.
constexpr int64_t kMostDirections = 4;

// Steps per chunk of the scan: the forward pass keeps one state per chunk, the backward pass recomputes the others.
constexpr int64_t kScanChunk = 32;

// Chunks that may be needed for sequences of `steps` steps in all.  Chunks of different sequences never share a place:
// packed sequence i begins at chunk offsets[i] / kScanChunk + i, which leaves some places empty but needs no table.
SSM_HOST_DEVICE inline int64_t scan_chunks(const Sequences& sequences) {
  if (sequences.packed()) return sequences.steps / kScanChunk + sequences.count;
  return sequences.count * ((sequences.steps + kScanChunk - 1) / kScanChunk);
}

SSM_HOST_DEVICE inline int64_t first_scan_chunk(const Sequences& sequences, int64_t index) {
  if (sequences.packed()) return sequences.offsets[index] / kScanChunk + index;
  return index * ((sequences.steps + kScanChunk - 1) / kScanChunk);
}

}  // namespace ssm
