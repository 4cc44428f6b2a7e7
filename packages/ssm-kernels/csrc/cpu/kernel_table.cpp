// Compiled once per instruction set: SSM_ISA is baseline, avx2 or avx512.
#include "cpu/kernel_table.h"

#include "cpu/operators.h"

namespace ssm::SSM_ISA {

extern const KernelTable kernel_table;
const KernelTable kernel_table = {
    selective_scan_forward,
    selective_scan_backward,
    selective_scan_complex_forward,
    selective_scan_complex_backward,
    causal_conv1d_forward,
    causal_conv1d_backward,
    machine_limit_round,
    causal_conv1d_update,
    selective_state_update,
    selective_state_update_complex,
    diagonal_scan_forward,
    diagonal_scan_backward,
    log_vandermonde_forward,
    log_vandermonde_backward,
    cauchy_forward,
    cauchy_backward,
    mamba_directions,
    rms_norm,
    linear,
    selective_scan_directions_forward,
    nullptr,
    ssd_scan_forward,
    ssd_scan_backward,
};

}  // namespace ssm::SSM_ISA
