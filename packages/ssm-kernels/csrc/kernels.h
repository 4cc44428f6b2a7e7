// The operators of one instruction set, or of CUDA.  A new operator adds one member here, one line in
// cpu/kernel_table.cpp and one in cuda/kernel_table.cpp.
#pragma once

#include "causal_conv1d_params.h"
#include "causal_conv1d_update_params.h"
#include "cauchy_params.h"
#include "cpu/machine_limits.h"
#include "diagonal_scan_params.h"
#include "linear_params.h"
#include "log_vandermonde_params.h"
#include "mamba_directions_params.h"
#include "params.h"
#include "rms_norm_params.h"
#include "selective_state_update_params.h"
#include "ssd_scan_params.h"

namespace ssm {

struct KernelTable {
  void (*selective_scan_forward)(const ScanForward&);
  void (*selective_scan_backward)(const ScanBackward&);
  void (*selective_scan_complex_forward)(const ScanForward&);
  void (*selective_scan_complex_backward)(const ScanBackward&);
  void (*causal_conv1d_forward)(const ConvForward&);
  void (*causal_conv1d_backward)(const ConvBackward&);
  int64_t (*machine_limit_round)(const LimitRound&);
  void (*causal_conv1d_update)(const ConvUpdate&);
  void (*selective_state_update)(const StateUpdate&);
  void (*selective_state_update_complex)(const StateUpdate&);
  void (*diagonal_scan_forward)(const DiagonalForward&);
  void (*diagonal_scan_backward)(const DiagonalBackward&);
  void (*log_vandermonde_forward)(const VandermondeForward&);
  void (*log_vandermonde_backward)(const VandermondeBackward&);
  void (*cauchy_forward)(const CauchyForward&);
  void (*cauchy_backward)(const CauchyBackward&);
  void (*mamba_directions)(const MambaDirections&);  // of the CPU alone, and so are
  void (*rms_norm)(const RmsNorm&);
  void (*linear)(const Linear&);
  // Scans in several directions whose y, that of the first, is their sum, gated by the z of the last.
  void (*selective_scan_directions_forward)(const ScanForward*, int64_t count) = nullptr;
  // Their gradients; nullptr: one after the other is as fast.  All have the same z, and its gradient is that of the
  // first; where a direction adds to the gradient of u, u and its gradient are those of the first, too.
  void (*selective_scan_directions_backward)(const ScanBackward*, int64_t count) = nullptr;
  void (*ssd_scan_forward)(const SsdForward&) = nullptr;
  void (*ssd_scan_backward)(const SsdBackward&) = nullptr;
  bool keep_gil = false;  // kernels that ask Python for scratch memory, and return before they are done
};

// Those that the extension module runs: chosen for the processor in _native (cpu/isa.cpp), CUDA's in _cuda.
const KernelTable& active_kernels();

}  // namespace ssm
