// The operators of the extension module _cuda, and of _simulated.
#include "kernels.h"

#include <stdexcept>

#include "cuda/operators.h"

namespace ssm {
namespace {

template <class Params>
void not_there(const Params&) {
  throw std::runtime_error("this operator has no CUDA kernel");
}

// Complex A is one of the cases that the scan tells apart itself.
const KernelTable kernel_table = {
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    nullptr,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    not_there,
    /*keep_gil=*/true,
};

}  // namespace

const KernelTable& active_kernels() { return kernel_table; }

}  // namespace ssm
