// The forward pass of the diagonal scan; see diagonal_scan_plan.h for how it runs.
#include "cuda/diagonal_scan_launch.cuh"
#include "cuda/operators.h"

namespace ssm::cuda {

void diagonal_scan_forward(const DiagonalForward& params) {
  diagonal::Task p;
  p.in = params.in;
  p.backwards = p.in.reverse;
  p.a = diagonal::tensor(p.in.a, p.in);
  p.x = diagonal::tensor(params.u, p.in);
  p.y = diagonal::tensor(params.h, p.in);
  p.first_state = p.initial_state = p.in.initial_state;
  p.last_state = params.final_state;
  const bool turned = p.a.turned || p.x.turned || p.y.turned;
  p.plan = plan_diagonal_scan(p.in, false, turned, SumOfA::not_wanted, multiprocessors(p.in.cuda));
  diagonal::set_workspace(p, allocate(p.in.cuda, p.plan.workspace_bytes));
  diagonal::start<false>(p);
}

}  // namespace ssm::cuda
