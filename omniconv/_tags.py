"""How a parameter wants to be trained: declared by the module that owns it, read by whoever builds the optimiser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tag:
    """`lr_scale`: factor on the learning rate, (0, inf). `decay`: whether weight decay applies."""

    lr_scale: float = 1.0
    decay: bool = True


class Tagged:
    """Base of modules whose parameters ask for a learning rate or a weight decay of their own."""

    def parameter_tags(self) -> dict[str, Tag]:
        """Tags of the module's own parameters, by their name in `named_parameters()`; the others train as usual."""
        return {}
