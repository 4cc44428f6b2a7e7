// The SSD scan, forward: what each chunk adds to the state, the states before each chunk, and y, in three launches.
#include "cuda/operators.h"
#include "cuda/ssd_launch.h"
#include "cuda/ssd_outputs.cuh"
#include "cuda/workspace.h"

namespace ssm::cuda {
namespace {

template <DType T>
void run(const SsdForward& params) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = params.in;
  const SsdPlan plan = plan_ssd(in, false);
  char* workspace = allocate(in.cuda, plan.workspace.bytes);
  const SsdForwardCall call{params, workspace + plan.workspace.states, workspace + plan.workspace.decays};
  launch_states<T>(call, plan);
  launch_carry<Compute>({in, plan.carry_blocks, call.states, call.decays, static_cast<const char*>(in.initial_state),
                         static_cast<char*>(params.final_state), false});
  const int64_t shared_bytes = int64_t(sizeof(SsdOutputsMemory<Compute>)) + staged_bytes<Compute>();
  launch(ssd_outputs<T>, ssd_grid(plan.chunks * in.heads, plan.channel_tiles, shared_bytes), in.cuda, call);
}

}  // namespace

void ssd_scan_forward(const SsdForward& params) {
  switch (params.in.dtype) {
    case DType::f32: return run<DType::f32>(params);
    case DType::f64: return run<DType::f64>(params);
    case DType::bf16: return run<DType::bf16>(params);
    case DType::f16: return run<DType::f16>(params);
  }
}

}  // namespace ssm::cuda
