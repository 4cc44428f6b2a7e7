// The SSD scan, forward: what each chunk adds to the state, the states before each chunk, and y, in three launches.
#include "cuda/operators.h"
#include "cuda/ssd_launch.h"
#include "cuda/ssd_outputs.cuh"
#include "cuda/workspace.h"

namespace ssm::cuda {

void ssd_scan_forward(const SsdForward& params) {
  const SsdInputs& in = params.in;
  const SsdPlan plan = plan_ssd(in, false);
  char* workspace = allocate(in.cuda, plan.workspace.bytes);
  const SsdForwardCall call{params, workspace + plan.workspace.states, workspace + plan.workspace.decays};
  launch_ssd_states(call, plan);
  launch_ssd_carry({in, plan.carry_blocks, call.states, call.decays, static_cast<const char*>(in.initial_state),
                    static_cast<char*>(params.final_state), false});
  with_dtype(in.dtype, [&](auto type) {
    using Compute = typename Number<type()>::Compute;
    const int64_t shared_bytes = int64_t(sizeof(SsdOutputsMemory<Compute>)) + staged_bytes<Compute>();
    launch(ssd_outputs<type()>, ssd_grid(plan.chunks * in.heads, plan.channel_tiles, shared_bytes), in.cuda, call);
  });
}

}  // namespace ssm::cuda
