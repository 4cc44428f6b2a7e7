// The operators of the extension module _cuda, and of _simulated.
#include "kernels.h"

#include "cuda/operators.h"

namespace ssm {
namespace {

// Complex A is one of the cases that the scan tells apart itself.
const KernelTable kernel_table = {
    cuda::selective_scan_forward,
    cuda::selective_scan_backward,
    cuda::selective_scan_forward,
    cuda::selective_scan_backward,
    cuda::causal_conv1d_forward,
    cuda::causal_conv1d_backward,
    nullptr,
    cuda::causal_conv1d_update,
    cuda::selective_state_update,
    cuda::selective_state_update,
    cuda::diagonal_scan_forward,
    cuda::diagonal_scan_backward,
    cuda::log_vandermonde_forward,
    cuda::log_vandermonde_backward,
    cuda::cauchy_forward,
    cuda::cauchy_backward,
    nullptr,
    nullptr,
    nullptr,
    cuda::selective_scan_directions_forward,
    cuda::selective_scan_directions_backward,
    cuda::ssd_scan_forward,
    cuda::ssd_scan_backward,
    /*keep_gil=*/true,
};

}  // namespace

const KernelTable& active_kernels() { return kernel_table; }

}  // namespace ssm
