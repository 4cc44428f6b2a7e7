// The operators on a GPU: each starts its kernels on the stream of the call and returns.  Tensors are device memory.
// Throws std::runtime_error if CUDA refuses a launch.
#pragma once

#include <string>

#include "causal_conv1d_params.h"
#include "causal_conv1d_update_params.h"
#include "cauchy_params.h"
#include "diagonal_scan_params.h"
#include "log_vandermonde_params.h"
#include "params.h"
#include "selective_state_update_params.h"
#include "ssd_scan_params.h"

namespace ssm::cuda {

void selective_scan_forward(const ScanForward& params);
void selective_scan_directions_forward(const ScanForward* directions, int64_t count);
void selective_scan_directions_backward(const ScanBackward* directions, int64_t count);
void selective_scan_backward(const ScanBackward& params);
void causal_conv1d_forward(const ConvForward& params);
void causal_conv1d_backward(const ConvBackward& params);
void causal_conv1d_update(const ConvUpdate& params);
void selective_state_update(const StateUpdate& params);
void diagonal_scan_forward(const DiagonalForward& params);
void diagonal_scan_backward(const DiagonalBackward& params);
void ssd_scan_forward(const SsdForward& params);
void ssd_scan_backward(const SsdBackward& params);
void log_vandermonde_forward(const VandermondeForward& params);
void log_vandermonde_backward(const VandermondeBackward& params);
void cauchy_forward(const CauchyForward& params);
void cauchy_backward(const CauchyBackward& params);

// Versions of the CUDA runtime in this module and of the driver, as 1000 major + 10 minor; 0 without a driver.
int runtime_version();
int driver_version();

// Why kernels cannot run on a device, or an empty string.
std::string device_problem(int device);

}  // namespace ssm::cuda
