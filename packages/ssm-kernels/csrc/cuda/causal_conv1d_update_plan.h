// How the convolution of new samples is dealt to a GPU: one thread per channel of one batch index.
#pragma once

#include <cstdint>

namespace ssm::cuda {

constexpr int kConvUpdateThreads = 128;

struct ConvUpdatePlan {
  int64_t blocks_per_row = 0;  // blocks for the channels of one batch index
  int64_t blocks = 0;
};

inline ConvUpdatePlan plan_conv_update(int64_t batch, int64_t steps, int64_t channels) {
  ConvUpdatePlan plan;
  plan.blocks_per_row = (channels + kConvUpdateThreads - 1) / kConvUpdateThreads;
  plan.blocks = steps == 0 ? 0 : batch * plan.blocks_per_row;
  return plan;
}

}  // namespace ssm::cuda
