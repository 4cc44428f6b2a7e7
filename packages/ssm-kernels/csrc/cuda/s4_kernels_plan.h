// How the kernel generators of S4D and S4 are dealt to a GPU.  Pure functions of sizes.
#pragma once

#include <cstdint>

namespace ssm::cuda {

constexpr int kS4Threads = 128;

// Parts of at most `size` that `count` is cut into.
constexpr int64_t parts_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The sum of powers: exp(t x) with t = 64 line + place is the product of a power of the line and one of the place, and
// the sum over the states of a row is a product of two small matrices.  A block makes a tile of K, some lines of a row,
// 8 places of 1, 2 or 4 lines per thread, and takes 16 states at a time.
constexpr int64_t kPlaces = 64;
constexpr int kBlockStates = 16;
constexpr int kLineThreads = kS4Threads / 8;

struct VandermondePlan {
  int lines_per_thread = 1;
  int64_t tiles = 0;   // per row
  int64_t blocks = 0;  // channels * rows * tiles
  int64_t lines() const { return int64_t(lines_per_thread) * kLineThreads; }  // of a tile
  int64_t steps() const { return lines() * kPlaces; }
};

// The largest tiles of which at least half is used and that still fill the GPU: they read least per multiplication.
// Double precision (`wide`) has tiles of one size.
inline VandermondePlan plan_vandermonde(int64_t channels, int64_t rows, int64_t steps, bool wide, int multiprocessors) {
  VandermondePlan plan;
  for (plan.lines_per_thread = wide ? 2 : 4;; plan.lines_per_thread /= 2) {
    plan.tiles = parts_of(steps, plan.steps());
    plan.blocks = channels * rows * plan.tiles;
    const bool half_used = 2 * steps >= plan.tiles * plan.steps();
    if (wide || plan.lines_per_thread == 1 || (half_used && plan.blocks >= multiprocessors)) return plan;
  }
}

// Shared memory: the tables of powers, of 16 states (two numbers each) and all lines or places; backwards also the tile
// of the gradient and the sums of the four warps.  Rows have 4 numbers more than they need, so that threads which write a
// column find different banks.
constexpr int kSpare = 4;
constexpr int64_t kPlaceRow = kPlaces + kSpare;
constexpr int64_t kStateRow = 2 * kBlockStates + kSpare;

inline int64_t vandermonde_forward_numbers(const VandermondePlan& plan) {
  return 2 * kBlockStates * (kPlaceRow + plan.lines() + kSpare);
}
inline int64_t vandermonde_backward_numbers(const VandermondePlan& plan) {
  return kPlaces * kStateRow + 2 * kBlockStates * (plan.lines() + kSpare) + plan.lines() * kPlaceRow +
         kS4Threads / 32 * kBlockStates * 4;
}

// The Cauchy sum: a thread has some nodes and adds up all states, of up to four channels at once, which share the
// fractions.
constexpr int kStatesAtOnce = 64;  // in shared memory

struct CauchyPlan {
  int channels = 1;           // per thread: 1 or 4
  int nodes_per_thread = 4;
  int64_t channel_groups = 0;
  int64_t tiles = 0;   // of the nodes of a row
  int64_t blocks = 0;  // rows * channel_groups * tiles
  int64_t nodes() const { return int64_t(nodes_per_thread) * kS4Threads; }  // of a tile
};

inline CauchyPlan plan_cauchy(int64_t channels, int64_t rows, int64_t nodes, int multiprocessors) {
  CauchyPlan plan;
  plan.channels = channels > 1 ? 4 : 1;
  plan.channel_groups = parts_of(channels, plan.channels);
  for (plan.nodes_per_thread = channels > 1 ? 2 : 4;; plan.nodes_per_thread /= 2) {
    plan.tiles = parts_of(nodes, plan.nodes());
    plan.blocks = rows * plan.channel_groups * plan.tiles;
    const bool half_used = 2 * nodes >= plan.tiles * plan.nodes();
    if (plan.nodes_per_thread == 1 || (half_used && plan.blocks >= 2 * multiprocessors)) return plan;
  }
}

inline int64_t cauchy_forward_numbers(const CauchyPlan& plan) { return kStatesAtOnce * (2 + 2 * plan.channels); }

// The sums over nodes for the gradients of v and w: a block has a piece of the nodes of a row, its threads are states,
// and where there are fewer states than threads, several share the nodes of one.
constexpr int64_t kMostNodes = 512;

struct PoleSumsPlan {
  int channels = 1;        // at once: 1 or 4
  int states = 1;          // at once: a power of 2
  int64_t channel_groups = 0;
  int64_t pieces = 0;      // of the nodes of a row
  int64_t piece_nodes = 0;
  int64_t blocks = 0;      // rows * channel_groups * pieces
  int sharers() const { return kS4Threads / states; }
};

inline PoleSumsPlan plan_pole_sums(int64_t channels, int64_t rows, int64_t states, int64_t nodes) {
  PoleSumsPlan plan;
  plan.channels = channels > 1 ? 4 : 1;
  while (plan.states < states && plan.states < kS4Threads) plan.states *= 2;
  plan.channel_groups = parts_of(channels, plan.channels);
  plan.pieces = parts_of(nodes, kMostNodes);
  plan.piece_nodes = parts_of(nodes, plan.pieces);
  plan.blocks = rows * plan.channel_groups * plan.pieces;
  return plan;
}

// The nodes and gradients of a piece, then four sums per thread and channel.
inline int64_t pole_sums_numbers(const PoleSumsPlan& plan) {
  return plan.piece_nodes * (2 + 2 * plan.channels) + int64_t(kS4Threads) * 4 * plan.channels;
}

// Workspace of a backward pass, with numbers of `number` bytes: sums s and t (two complex numbers) of every piece,
// channel, row and state; see pole_gradients.cuh.
inline int64_t pole_sums_bytes(int64_t pieces, int64_t channels, int64_t rows, int64_t states, int64_t number) {
  return pieces * channels * rows * states * 4 * number;
}

}  // namespace ssm::cuda
