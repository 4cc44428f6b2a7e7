"""Differentiable operators: a kernel with its gradient, by the shortest way through PyTorch.

`Differentiable` knows four ways, which share the two launch functions and so cannot drift apart:

| the call                                    | goes through                                      |
|---|---|
| eager, no gradient wanted                   | `launch` itself                                   |
| eager                                       | an autograd.Function around `launch`: 4 us        |
| torch.func (vmap, grad, jacrev)             | an autograd.Function with rules for them: 100 us  |
| torch.compile, torch.export, dispatch modes | the registered operator                           |

Only reverse-mode derivatives of first order exist. Forward-mode and second derivatives raise
BackendError; the reference has both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from .errors import BackendError
from .library import Arguments, Kernel, needs_dispatcher, register, torch_func_is_active
from .library_vmap import vmap_rule


class Differentiable:
    """A pair of kernels, called like the first one but without its last argument.

    Args:
        name: of the operator in messages.
        forward: its last argument is `bool save_for_backward`: whether to fill the results that
            only the gradient needs.
        backward: returns one gradient per tensor argument of `forward`, in that order; the last
            ones may be left out. Those that are not wanted may be None.
        n_results: how many results of `forward` are the operator's; the rest is for the gradient.
        save: (arguments, results) of `forward` -> tensors to keep for the gradient.
        backward_arguments: (kept tensors, non-tensor arguments of `forward`, gradients of the
            results or None, whether each tensor argument wants one) -> arguments of `backward`.
    """

    def __init__(
        self,
        name: str,
        forward: Kernel,
        backward: Kernel,
        *,
        n_results: int,
        save: Callable[[Arguments, Arguments], tuple[Tensor | None, ...]],
        backward_arguments: Callable[[Arguments, Arguments, Arguments, Arguments], Arguments],
    ) -> None:
        self.name = name
        self.launch, self.launch_backward = forward.launch, backward.launch
        self.folds, self.folds_backward = forward.folds, backward.folds
        self.n_results = n_results
        arguments = forward.schema.split("->")[0]
        self._n_tensors, self._n_arguments = arguments.count("Tensor"), arguments.count(",") + 1
        self._save, self._backward_arguments = save, backward_arguments

        self.op = register(forward, self._op_backward, self.setup_traced)
        self.backward_op = register(backward, self._backward_op_backward)
        self.functional_backward = _functional_backward(self)
        self._functional = _functional_function(self)
        self._eager = _eager_function(self)

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        """Run the operator on arguments that have been checked; return its results."""
        n = self.n_results
        if is_compiling():
            if forward_ad._current_level >= 0:
                raise self.no_forward_mode()
            return self.op(*arguments, self._wants_gradient(arguments))[:n]
        if torch_func_is_active():
            # Whether a gradient is wanted does not show on the tensors of an inner transform.
            return self._functional.apply(*arguments, torch.is_grad_enabled())[:n]
        if forward_ad._current_level >= 0 and any(map(_has_tangent, arguments)):
            raise self.no_forward_mode()
        save = self._wants_gradient(arguments)
        if needs_dispatcher(arguments):
            return self.op(*arguments, save)[:n]
        if save:
            return self._eager(*arguments, True)
        results: Any = self.launch(*arguments, False)
        return results[:n]

    def setup(self, ctx: Any, arguments: Arguments, results: Arguments) -> None:
        """Keep in ctx what the gradient needs."""
        ctx.set_materialize_grads(False)
        ctx.options = arguments[self._n_tensors : -1]
        ctx.save_for_backward(*self._save(arguments, results))

    def setup_traced(self, ctx: Any, inputs: Arguments, output: Arguments) -> None:
        """The same where the results for the gradient are visible outside, too."""
        ctx.mark_non_differentiable(*output[self.n_results :])
        ctx.has_saved = inputs[-1]
        self.setup(ctx, inputs, output)

    def gradients(self, ctx: Any, call: Callable[..., Any], grads: Arguments) -> Arguments:
        """Run the backward kernel through `call`; return one entry per argument of `forward`."""
        gradients = call(
            *self._backward_arguments(ctx.saved_tensors, ctx.options, grads, ctx.needs_input_grad)
        )
        return (*gradients, *(None,) * (self._n_arguments - len(gradients)))

    def gradients_traced(self, ctx: Any, call: Callable[..., Any], grads: Arguments) -> Arguments:
        """The same where what is absent comes as a placeholder."""
        if not ctx.has_saved:
            raise BackendError(
                f"{self.name}: the operator ran with save_for_backward=False, expected True where "
                f"a gradient is wanted; call ssm_kernels.{self.name}, which sets it"
            )
        gradients = self.gradients(ctx, call, grads[: self.n_results])
        return tuple(
            g if wanted else None for g, wanted in zip(gradients, ctx.needs_input_grad, strict=True)
        )

    def _wants_gradient(self, arguments: Arguments) -> bool:
        if torch.is_grad_enabled():
            for x in arguments[: self._n_tensors]:
                if x is not None and x.requires_grad:
                    return True
        return False

    def no_second_derivative(self) -> BackendError:
        return BackendError(
            f"{self.name}: the gradients of the native kernel cannot be differentiated again; "
            "pass backend='reference' for second derivatives"
        )

    def no_forward_mode(self) -> BackendError:
        return BackendError(
            f"{self.name}: the native kernel has no forward-mode derivative; "
            "pass backend='reference' for one, or use reverse mode (torch.func.grad, vjp, jacrev)"
        )

    def _op_backward(self, ctx: Any, *grads: Tensor | None) -> Arguments:
        return self.gradients_traced(ctx, self.backward_op, grads)

    def _backward_op_backward(self, ctx: Any, *_: Any) -> Any:
        raise self.no_second_derivative()


def _has_tangent(x: object) -> bool:
    return isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None


def _eager_function(operator: Differentiable) -> Callable[..., tuple[Tensor, ...]]:
    """Return the fast way: one call into autograd, results for the gradient kept inside."""

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            results: Any = operator.launch(*arguments)
            operator.setup(ctx, arguments, results)
            return results[: operator.n_results]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Arguments:
            if torch.is_grad_enabled():  # create_graph=True: in a graph, one that raises
                ctx.has_saved = True
                return operator.gradients_traced(ctx, operator.functional_backward.apply, grads)
            return operator.gradients(ctx, operator.launch_backward, grads)

    # Function.apply only adds what torch.func needs, which has a way of its own.
    return super(torch.autograd.Function, Eager).apply


def _functional_function(operator: Differentiable) -> type[torch.autograd.Function]:
    """Return the way that torch.func can transform."""

    class Functional(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return operator.op(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Arguments, output: Any) -> None:
            operator.setup_traced(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Arguments:
            return operator.gradients_traced(ctx, operator.functional_backward.apply, grads)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise operator.no_forward_mode()

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            return vmap_rule(Functional.apply, operator.folds)(info, in_dims, *arguments)

    return Functional


def _functional_backward(operator: Differentiable) -> type[torch.autograd.Function]:
    """Return the backward kernel as a function that vmap can transform and nothing else."""

    class FunctionalBackward(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return operator.backward_op(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Arguments, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            raise operator.no_second_derivative()

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise operator.no_forward_mode()

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            rule = vmap_rule(FunctionalBackward.apply, operator.folds_backward)
            return rule(info, in_dims, *arguments)

    return FunctionalBackward
