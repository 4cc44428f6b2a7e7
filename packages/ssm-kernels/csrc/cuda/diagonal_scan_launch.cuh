// Starts the kernels of the diagonal scan for the types of a call.
#pragma once

#include "cuda/diagonal_scan_kernels.cuh"
#include "cuda/grid.h"

namespace ssm::cuda::diagonal {

// How the numbers of a tensor with this many channels are reached best.
inline Tensor tensor(const View3& view, const DiagonalInputs& in) {
  Tensor x;
  x.view = view;
  if (view.data == nullptr) return x;
  const int64_t group = diagonal_group(in.dtype), bytes = group * size_of(view.dtype);
  x.whole = group == 1 || (view.stride_d == 1 && view.stride_l % group == 0 && view.stride_b % group == 0 &&
                           reinterpret_cast<uintptr_t>(view.data) % uintptr_t(bytes) == 0);
  x.turned = (view.stride_l == 1 || view.stride_l == -1) && (view.stride_d != 1 || in.channels == 1) && in.steps > 1 &&
             view.stride_d != 0;
  return x;
}

template <class Y>
void start(const Task& p) {
  const DiagonalPlan& plan = p.plan;
  LaunchShape shape;
  shape.block = dim3(unsigned(kDiagonalLanes), unsigned(plan.warps));
  shape.shared_bytes = plan.shared_bytes;
  if (plan.chunks > 1) {
    shape.grid = grid_of(plan.row_blocks * (plan.chunks - 1));
    launch(map_chunks<Y>, shape, p.in.cuda, p);
    launch(link_chunks<Y>, {grid_of(plan.row_blocks), dim3(unsigned(kDiagonalLanes)), 0}, p.in.cuda, p);
  }
  shape.grid = grid_of(plan.blocks());
  launch(run_chunks<Y>, shape, p.in.cuda, p);
}

template <bool Backward>
void start(const Task& p) {
  using F32 = Element<DType::f32, false>;
  using BF16 = Element<DType::bf16, false>;
  using F16 = Element<DType::f16, false>;
  const bool same = p.in.a.dtype == p.in.dtype;
  if (p.in.is_complex && p.in.dtype == DType::f64) {
    start<Types<Element<DType::f64, true>, Element<DType::f64, true>, Backward>>(p);
  } else if (p.in.is_complex) {
    start<Types<Element<DType::f32, true>, Element<DType::f32, true>, Backward>>(p);
  } else if (p.in.dtype == DType::f64) {
    start<Types<Element<DType::f64, false>, Element<DType::f64, false>, Backward>>(p);
  } else if (p.in.dtype == DType::f32) {
    start<Types<F32, F32, Backward>>(p);
  } else if (p.in.dtype == DType::bf16) {
    same ? start<Types<BF16, BF16, Backward>>(p) : start<Types<BF16, F32, Backward>>(p);
  } else {
    same ? start<Types<F16, F16, Backward>>(p) : start<Types<F16, F32, Backward>>(p);
  }
}

// The places of the chunks' maps in the workspace.
inline void set_workspace(Task& p, char* workspace) {
  if (p.plan.chunks == 1) return;
  p.products = workspace + p.plan.maps_offset;
  p.results = p.products + p.in.sequences().count * p.plan.chunks * p.in.channels * p.plan.number_bytes;
}

}  // namespace ssm::cuda::diagonal
