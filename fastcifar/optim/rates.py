"""Sets the learning rates of an optimiser, and reports what it was set to."""

from typing import NamedTuple

import torch
from torch import Tensor

PEAK = "initial_lr"
"""Key of a group's peak rate; torch's own schedulers use it as well."""


class Rates(NamedTuple):
    """The learning rate and the momentum of each parameter group, by its name; groups without momentum are absent."""

    lr: dict[str, float]
    momentum: dict[str, float]


def rates_at(optimizer: torch.optim.Optimizer, lr_scale: float) -> Rates:
    """The rates of every group at `lr_scale` times its peak rate, in the order of the groups; sets nothing."""
    rates: dict[str, float] = {}
    momenta: dict[str, float] = {}
    for number, group in enumerate(optimizer.param_groups):
        name = str(group.get("name", "all" if len(optimizer.param_groups) == 1 else f"group {number}"))
        name = name if name not in rates else f"{name} {number}"
        rates[name] = group.setdefault(PEAK, float(group["lr"])) * lr_scale
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        if momentum is not None:
            momenta[name] = float(momentum)
    return Rates(rates, momenta)


def set_lr(optimizer: torch.optim.Optimizer, lr_scale: float) -> Rates:
    """Sets every group to `lr_scale` times its peak rate. Does not wait for the device."""
    rates = rates_at(optimizer, lr_scale)
    for group, lr in zip(optimizer.param_groups, rates.lr.values(), strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    return rates


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `prepare_for_capture` makes a step that a CUDA graph can record: it reads nothing on the host."""
    return all("capturable" in group or group.get("fused") for group in optimizer.param_groups)


def prepare_for_capture(optimizer: torch.optim.Optimizer, device: torch.device) -> Tensor:
    """Makes the learning rates entries of a tensor (groups,) on `device`, which a recorded step reads; returns it.

    Must be called before the first step: it also moves step counters, which are part of the state, to the device.
    """
    rates = torch.tensor([group.setdefault(PEAK, float(group["lr"])) for group in optimizer.param_groups])
    rates = rates.to(device)
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
        if "capturable" in group and device.type == "cuda":
            group["capturable"] = True
    # the steps that warm up are not captured, of which torch would warn
    optimizer._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]
    return rates
