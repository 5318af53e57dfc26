"""Layers that read learned sizes on the host, outside of `forward`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import nn

from omniconv._errors import check_instance
from omniconv.nn._kept_taps import KeptTaps


class Refreshed(nn.Module, ABC):
    """Base of layers whose kernels are sampled as far as a learned support reaches, and kept at evaluation.

    A subclass calls `refresh()` at the end of its constructor; here it is called after `load_state_dict`, on `train()`
    and `eval()`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept_taps = KeptTaps()
        self.register_load_state_dict_post_hook(refresh_after_loading)

    @abstractmethod
    def refresh(self) -> None:
        """Read the learned sizes anew, and forget what was made with those of before."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.kept_taps.clear()
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as `torch.nn.Module.train` does, and `refresh()`."""
        super().train(mode)
        self.refresh()
        return self


def refresh(model: nn.Module) -> None:
    """`refresh()` of every convolution in `model`: call it after the parameters have changed."""
    check_instance("model", model, nn.Module)
    for module in model.modules():
        if isinstance(module, Refreshed):
            module.refresh()


def refresh_after_loading(module: nn.Module, incompatible_keys: object) -> None:
    """Read the loaded sizes; a function of the module, so that layers can be copied and pickled."""
    refresh(module)
