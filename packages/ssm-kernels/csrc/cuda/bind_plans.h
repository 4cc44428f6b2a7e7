// The rules that decide how operators run on a GPU, as plain functions of sizes: for tests.
#pragma once

#include <pybind11/pybind11.h>

namespace ssm::cuda {

void bind_causal_conv1d_plan(pybind11::module_& module);
void bind_diagonal_scan_plan(pybind11::module_& module);
void bind_s4_kernels_plan(pybind11::module_& module);
void bind_selective_scan_forward_plan(pybind11::module_& module);
void bind_ssd_plan(pybind11::module_& module);
void bind_scan_backward_plan(pybind11::module_& module);
void bind_update_plans(pybind11::module_& module);

}  // namespace ssm::cuda
