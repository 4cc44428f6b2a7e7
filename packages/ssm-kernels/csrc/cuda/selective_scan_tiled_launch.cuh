// Chooses among the kernels with kLanes lanes per channel.
#pragma once

#include "cuda/grid.h"
#include "cuda/selective_scan_tiled_kernel.cuh"

namespace ssm::cuda {

template <class Shape>
void launch_shape(const TiledLaunch& how, const TiledForward& params) {
  const LaunchShape shape = {grid_of(how.plan.grid), dim3(kTiledThreads),
                             Shape::kStageOffset + 2 * int64_t(params.stage_bytes)};
  launch(scan_tiled<Shape>, shape, how.call, params);
}

template <int kLanes>
void launch_tiled(const TiledLaunch& how, const TiledForward& params) {
  switch (how.plan.lane_states) {
    case 1:
      if constexpr (kLanes == 1) launch_shape<TiledShape<kLanes, 1>>(how, params);
      break;
    case 2: launch_shape<TiledShape<kLanes, 2>>(how, params); break;
    case 4: launch_shape<TiledShape<kLanes, 4>>(how, params); break;
    case 8: launch_shape<TiledShape<kLanes, 8>>(how, params); break;
    default:
      if constexpr (kLanes < 8) launch_shape<TiledShape<kLanes, 16>>(how, params);
  }
}

}  // namespace ssm::cuda
