// Each operator registers its functions with the extension module here.
#pragma once

#include <pybind11/pybind11.h>

namespace ssm {

void bind_selective_scan(pybind11::module_& module);
void bind_causal_conv1d(pybind11::module_& module);
void bind_diagonal_scan(pybind11::module_& module);

}  // namespace ssm
