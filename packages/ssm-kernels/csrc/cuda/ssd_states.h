// Calls as the kernels of the SSD scan take them, and what both passes launch first.
#pragma once

#include "cuda/ssd_plan.h"

namespace ssm::cuda {

// The kernels' copy of a call: that of the forward pass, or of the backward pass, and addresses in the workspace.
struct SsdForwardCall {
  SsdForward call;
  char *states, *decays;
};
struct SsdBackwardCall {
  SsdBackward call;
  char *states, *grad_states, *decays, *grad_A, *grad_dt_bias, *grad_D;
};

// One launch carries all states of a call through their chunks, forwards or backwards in time.
struct SsdCarry {
  SsdInputs in;
  int64_t blocks;      // of a sequence and head
  char* states;        // (chunks, h, p, n): what is added, replaced by what was there before
  const char* decays;  // (chunks, h)
  const char* begin;   // (sequences, h, p, n) or nullptr for zeros
  char* end;           // (sequences, h, p, n) or nullptr
  bool backwards;
};

// What each chunk adds to the state in `call.states`, decays in `call.decays`.
void launch_ssd_states(const SsdForwardCall& call, const SsdPlan& plan);
// What each chunk adds to the gradient of the state before it in `call.grad_states`.
void launch_ssd_grad_states(const SsdBackwardCall& call, const SsdPlan& plan);
void launch_ssd_carry(const SsdCarry& carry);

}  // namespace ssm::cuda
