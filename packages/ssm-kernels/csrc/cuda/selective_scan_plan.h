// How a scan is cut into blocks: functions of sizes, strides and addresses only.
#pragma once

#include <cstdint>

#include "params.h"

namespace ssm::cuda {

constexpr int64_t kMostTiledStates = 64;

// The widest of 16, 8 and 4 bytes that divides everything in `bits` (addresses, strides and sizes in bytes, or-ed
// together) and does not exceed `most`; 0 if none does.
inline int32_t copy_bytes_of(uint64_t bits, int64_t most) {
  for (int32_t bytes = 16; bytes >= 4; bytes /= 2)
    if (bits % uint64_t(bytes) == 0 && bytes <= most) return bytes;
  return 0;
}

// Channels are cut into spans that share their rows of B and C, spans into blocks of `block_channels`.
struct ChannelBlocks {
  int64_t span, blocks_per_span, blocks, block_channels;

  SSM_HOST_DEVICE int64_t first(int64_t block) const {
    return block / blocks_per_span * span + block % blocks_per_span * block_channels;
  }
  SSM_HOST_DEVICE int64_t count(int64_t block) const {
    const int64_t rest = span - block % blocks_per_span * block_channels;
    return rest < block_channels ? rest : block_channels;
  }
};

inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

// groups_B, groups_C: 0 where the coefficient is constant in time.
inline ChannelBlocks channel_blocks(int64_t channels, int64_t groups_B, int64_t groups_C, int64_t block_channels) {
  if (channels == 0) return {0, 0, 0, block_channels};
  int64_t span = channels;
  if (groups_B > 0) span = common_divisor(span, channels / groups_B);
  if (groups_C > 0) span = common_divisor(span, channels / groups_C);
  const int64_t per_span = (span + block_channels - 1) / block_channels;
  return {span, per_span, channels / span * per_span, block_channels};
}

}  // namespace ssm::cuda
