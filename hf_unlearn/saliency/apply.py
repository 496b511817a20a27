"""A lens on an optimizer that lets it move the selected weights only (SalUn, arXiv 2310.12508, section 4)."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.elementwise import check_elementwise, decay_is_decoupled, unwrapped
from hf_unlearn.saliency.frozen_state import has_momentum_outside, keep_eight_bits_still_, raise_squares_
from hf_unlearn.saliency.masked_ops import add_inside_, keep_bits, scale_inside_, zero_outside_
from hf_unlearn.saliency.shards import is_dtensor

Keep = torch.Tensor | bool  # bits (see `keep_bits`); True or False where a whole tensor is selected, or none of it
_RAISE_EVERY = 500  # steps: second moments decay


class MaskedUpdates:
    """Holds every weight outside a mask at its exact bits, under any elementwise optimizer.

    The published procedure masks gradients; weight decay still moves the other weights, and they are put back from a
    copy after each step. Here nothing moves them in the first place: their gradient is exactly 0, so their momentum
    stays 0 and their update too, and the weight decay is taken off the optimizer for the length of the step and
    applied to the selected weights by hand, with the optimizer's own arithmetic. It costs one byte a weight.

        lens = MaskedUpdates(masks, model)
        lens.attach(optimizer)          # once, before the first step
        loss.backward()
        lens.mask_gradients()           # after gradients are reduced, before they are clipped
        clip_grad_norm_(...)
        optimizer.step()

    The selected weights move as under the plain optimizer fed with the masked gradient, bit for bit. Exceptions, all
    of weight decay: 16-bit weights with `fused=True` (rounded once more, before the update) or, on a CPU, with
    `foreach=True` (which rounds the factor); float32 weights with `fused=True` on CUDA (the last bit); bitsandbytes on
    CUDA (decay comes before the update, not after). A group whose tensors are all selected as a whole is left to the
    optimizer, so a mask of all weights changes nothing. Coupled decay (SGD, Adam) is added to `.grad` in place, so a
    gradient serves one step.

    Buffers are not its business: see [`freeze_buffers`].

    Args:
        masks (`Mapping[str, torch.Tensor]`): boolean, by parameter name, True for a weight that may move; in the
            parameter's shape. For a `DTensor` parameter: a `DTensor` of the same placements, the whole mask, or this
            process's shard of it.
        model (`torch.nn.Module`): the bare model (not wrapped in DDP). FSDP2 may shard it before or after.

    Raises:
        `UserError`: the masks do not fit the model's trainable weights, or select none.
    """

    def __init__(self, masks: Mapping[str, torch.Tensor], model: torch.nn.Module):
        self._owners = _owners(model)
        self._keep: dict[str, Keep] = {}
        self._bound: dict[torch.Tensor, Keep] = {}
        self._outside: dict[torch.Tensor, tuple[int, ...]] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._handles: list[Any] = []
        self._masked = False
        self._unchecked = True
        self._steps = 0
        self._held_decay: list[tuple[dict, Any]] = []
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if missing := sorted(trained - set(masks)):
            raise UserError(
                f"the saliency mask has nothing for {missing[0]} ({len(missing)} trainable tensors in all); "
                "measure it on this model, with the same weights trainable"
            )
        for name, mask in masks.items():
            if name not in self._owners or (name not in trained and bool(_local(mask).any())):
                state = "frozen in" if name in self._owners else "not in"
                raise UserError(
                    f"the saliency mask selects {name}, which is {state} this model; measure it on this model"
                )
            if name in trained:
                self._keep[name] = _as_keep(name, mask, self._parameter(name))
        if all(keep is False for keep in self._keep.values()):
            raise UserError("the saliency mask selects no weight, so nothing would be unlearned; raise its ratio")

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take charge of a new optimizer, before accelerate and the scheduler get it or after. Tensors that are all
        outside the mask are taken out of it.

        Raises:
            `UserError`: the optimizer is not elementwise, has taken steps already, or holds weights of another model.
        """
        optimizer = unwrapped(optimizer)
        if optimizer is self._optimizer:
            return
        check_elementwise(optimizer)
        for handle in self._handles:
            handle.remove()
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        self._unchecked, self._steps = True, 0
        for group in optimizer.param_groups:  # what is all outside would have no state, which FSDP's loading misses
            group["params"] = [p for p in group["params"] if not p.requires_grad or self._keep_of(p) is not False]

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Set the gradient of every weight outside the mask to 0 (to `None` for a tensor that is all outside).

        Call it once per step, when gradients are complete and reduced, before they are clipped. A step without it is
        masked all the same, but its clipping has seen the gradient of all weights.
        """
        for name, keep in self._keep.items():
            if keep is False:
                self._parameter(name).grad = None
        for group, parameter, keep in self._weights():
            if isinstance(keep, torch.Tensor) and parameter.grad is not None:
                zero_outside_(_local(parameter.grad), keep, _zero_is_negative(group))
        self._masked = True

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if any(value is not None for value in (*args[1:], *kwargs.values())):
            raise UserError("a saliency mask cannot hold an optimizer step with a closure; call step() without one")
        self._return_decay()
        if self._unchecked:
            self._check_momentum()
        if not self._masked or self._clipped_to_nan():
            self.mask_gradients()
        for group in optimizer.param_groups:
            if group.get("weight_decay", 0) != 0:
                self._decay(optimizer, group)

    def _decay(self, optimizer: torch.optim.Optimizer, group: dict) -> None:
        """Apply a group's weight decay to its selected weights, and keep the optimizer from doing it."""
        weights = [(p, self._keep_of(p)) for p in group["params"] if p.grad is not None]
        if all(keep is True for _, keep in weights):
            return
        decay = float(group["weight_decay"])
        self._held_decay.append((group, group["weight_decay"]))
        group["weight_decay"] = 0.0
        # A fused optimizer under a loss scaler divides the gradient, or drops the step, inside its kernel.
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        scale = getattr(optimizer, "grad_scale", None)
        alpha = decay * (1.0 if scale is None else float(scale)) * (-1 if group.get("maximize", False) else 1)
        factor = 1 - float(group["lr"]) * decay
        for parameter, keep in weights:
            weight, gradient = _local(parameter), _local(parameter.grad)
            if decay_is_decoupled(optimizer, group):
                scale_inside_(weight, keep, factor) if isinstance(keep, torch.Tensor) else weight.mul_(factor)
            elif isinstance(keep, torch.Tensor):
                add_inside_(gradient, keep, weight, alpha, _zero_is_negative(group))
            else:
                gradient.add_(weight, alpha=alpha)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        self._return_decay()
        self._masked = False
        raising = self._steps % _RAISE_EVERY == 0
        self._steps += 1
        for group, keep, state in self._states():
            keep_eight_bits_still_(state, keep)
            if raising and keep.device.type == "cpu" and not group.get("fused"):
                raise_squares_(state, keep)

    def _return_decay(self) -> None:
        """Checkpoints, logs and schedulers see the true value."""
        for group, decay in self._held_decay:
            group["weight_decay"] = decay
        self._held_decay = []

    def _clipped_to_nan(self) -> bool:
        """Whether clipping by a norm of NaN made every gradient NaN; one weight outside the mask tells for all."""
        for parameter, place in self._outside.items():
            if parameter.grad is not None:
                return bool(_local(parameter.grad)[place].isnan())
        return False

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        self._unchecked = True

    def _check_momentum(self) -> None:
        """A loaded state that was saved without this mask holds momentum that would move weights outside of it."""
        if any(has_momentum_outside(state, keep) for _, keep, state in self._states()):
            raise UserError(
                "the optimizer state in this checkpoint has momentum for weights outside the saliency mask; "
                "resume with the mask that the checkpoint was trained with"
            )
        self._unchecked = False

    def _states(self) -> Iterator[tuple[dict, torch.Tensor, dict[str, Any]]]:
        """Group, bits and optimizer state of each tensor that is selected in part."""
        states = self._attached.state
        for group, parameter, keep in self._weights():
            if isinstance(keep, torch.Tensor) and parameter in states:
                yield group, keep, states[parameter]

    @property
    def _attached(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            raise RuntimeError("attach the mask to an optimizer first")
        return self._optimizer

    def _weights(self) -> Iterator[tuple[dict, torch.nn.Parameter, Keep]]:
        for group in self._attached.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    yield group, parameter, self._keep_of(parameter)

    def _keep_of(self, parameter: torch.Tensor) -> Keep:
        if parameter not in self._bound:  # FSDP2 puts new parameters into the model and into the optimizer
            bound = {self._parameter(name): name for name in self._keep}
            if parameter not in bound:
                raise UserError(
                    "the optimizer holds a weight that the saliency mask's model does not train; rebuild it"
                )
            self._bound = {p: _on_shard(name, self._keep[name], p) for p, name in bound.items()}
            self._keep = {name: self._bound[p] for p, name in bound.items()}
            self._outside = {
                p: place for p, keep in self._bound.items() if (place := _first_outside(keep)) is not None
            }
        return self._bound[parameter]

    def _parameter(self, name: str) -> torch.nn.Parameter:
        module, leaf = self._owners[name]
        return cast(torch.nn.Parameter, module._parameters[leaf])


def freeze_buffers(model: torch.nn.Module) -> None:
    """Put layers that keep running statistics in train mode (BatchNorm and its like, spectral norm) into eval mode.

    No mask holds a buffer, and one that moves changes the model as a weight does. Call it after every `model.train()`,
    before the forward.
    """
    for module in model.modules():
        running = any(name.startswith("running_") or name == "num_batches_tracked" for name in module._buffers)
        if running or isinstance(module, torch.nn.utils.parametrizations._SpectralNorm):
            module.eval()


def _owners(model: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, str]]:
    """Where each parameter stands; the parameter itself is replaced when the model is sharded."""
    found = {}
    for name, _ in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        found[name] = (model.get_submodule(path), leaf)
    return found


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a DTensor, sharing its memory."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def _zero_is_negative(group: dict) -> bool:
    """With `maximize` the optimizer negates the gradient; only then adding +0.0 leaves a weight of -0.0 alone."""
    return group.get("maximize", False)


def _first_outside(keep: Keep) -> tuple[int, ...] | None:
    """Indices of a weight outside the mask, where a tensor has both kinds."""
    if isinstance(keep, bool) or keep.numel() == 0:
        return None
    place = tuple(int(i) for i in torch.unravel_index(keep.argmax(), keep.shape))  # the first 0 among 0 and -1
    return place if keep[place] == 0 else None


def _as_keep(name: str, mask: torch.Tensor, parameter: torch.Tensor) -> Keep:
    if mask.dtype != torch.bool or not parameter.is_floating_point():
        raise UserError(f"the saliency mask of {name} is not boolean, or its weights are not floating-point numbers")
    if mask.shape != parameter.shape and mask.shape != _local(parameter).shape:
        shapes = f"{tuple(mask.shape)}, the weights {tuple(parameter.shape)}"
        raise UserError(f"the saliency mask of {name} has shape {shapes}; measure it on this model")
    whole = mask.shape == parameter.shape and not is_dtensor(mask)
    if whole and not bool(mask.any()):  # every process sees the same, so all of them drop the gradient
        return False
    if whole and bool(mask.all()):
        return True
    return keep_bits(mask)


@torch.no_grad()
def _on_shard(name: str, keep: Keep, parameter: torch.Tensor) -> Keep:
    """`keep` for the part of a parameter that this process holds, on its device."""
    if isinstance(keep, bool):
        return keep
    if is_dtensor(parameter):
        from torch.distributed.tensor import distribute_tensor

        if not is_dtensor(keep) and keep.shape == parameter.shape:
            keep = distribute_tensor(
                keep.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
            )
        if is_dtensor(keep) and keep.placements != parameter.placements:
            raise UserError(f"the saliency mask of {name} is sharded otherwise than its weights; shard both alike")
    keep = _local(keep).to(parameter.device).contiguous()
    if keep.shape != _local(parameter).shape:
        raise UserError(
            f"the saliency mask of {name} does not have the shape of its weights; measure it on this model"
        )
    return keep
