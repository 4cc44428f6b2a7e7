// Operators of the instruction set this translation unit is compiled for.
//
// Everything a kernel file defines must live in namespace ssm::SSM_ISA, and kernel files must not use templates of the
// standard library that may stay out of line (std::vector, std::function, std::sort): the linker keeps one copy of an
// inline function of equal name, and a copy built for AVX-512 would then run on a processor without it.
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

namespace ssm::SSM_ISA {

void selective_scan_forward(const ScanForward& params);
void selective_scan_backward(const ScanBackward& params);
void selective_scan_complex_forward(const ScanForward& params);
void selective_scan_complex_backward(const ScanBackward& params);
void causal_conv1d_forward(const ConvForward& params);
void causal_conv1d_backward(const ConvBackward& params);
int64_t machine_limit_round(const LimitRound& round);  // returns the number of operations done
void causal_conv1d_update(const ConvUpdate& params);
void selective_state_update(const StateUpdate& params);
void selective_state_update_complex(const StateUpdate& params);
void diagonal_scan_forward(const DiagonalForward& params);
void diagonal_scan_backward(const DiagonalBackward& params);
void log_vandermonde_forward(const VandermondeForward& params);
void log_vandermonde_backward(const VandermondeBackward& params);
void cauchy_forward(const CauchyForward& params);
void cauchy_backward(const CauchyBackward& params);
void mamba_directions(const MambaDirections& params);
void rms_norm(const RmsNorm& params);
void linear(const Linear& params);
void selective_scan_directions_forward(const ScanForward* directions, int64_t count);
void ssd_scan_forward(const SsdForward& params);
void ssd_scan_backward(const SsdBackward& params);

}  // namespace ssm::SSM_ISA
