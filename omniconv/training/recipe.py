"""How a network is trained: every option that the result depends on."""

from __future__ import annotations

from dataclasses import dataclass

from omniconv._errors import check_choice, check_integer, check_number, describe
from omniconv._typing import check_bool
from omniconv.training.augmentation import CloudAugmentation
from omniconv.training.objective import PENALTIES

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Recipe:
    """The optimisation: AdamW by parameter tags, linear warm-up, cosine to zero."""

    epochs: int = 100
    """Passes over the training samples."""

    batch_size: int = 32
    """Samples per step and process; the batches of an epoch are made nearly equal, at most this large."""

    accumulate: int = 1
    """Parts in which a batch is computed one after the other, to save memory; normalisation is per part."""

    lr: float = 0.01
    """Highest learning rate; parameters may ask for a multiple of it."""

    weight_decay: float = 0.01
    """Decoupled weight decay of the parameters that are not biases, norms or frequencies."""

    warmup: float = 0.1
    """Share of the steps in which the learning rate grows."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    kernel_norm: float = 0.0
    """Weight of the sum of squares of the sampled kernels, added to the loss."""

    all_pass: float = 0.0
    """Weight of the distance of the convolutions from orthogonal ones, added to the loss."""

    antialias: float = 0.0
    """Weight of the kernels' frequencies above those of the grid, squared and added to the loss."""

    admissibility: float = 0.0
    """Weight of the squared means of the filters of group convolutions, added to the loss: towards wavelets."""

    narrowness: float = 0.0
    """Weight of -ln of the widths of learned parts of groups, added to the loss: towards all of the symmetry."""

    regrowth: float = 0.0
    """Weight of how much wider parts of groups are than those of the layer before, added to the loss."""

    relaxation: float = 0.0
    """Weight of the squared amounts by which layers leave their symmetry, added to the loss: back towards it."""

    average: float = 0.0
    """Decay per step of the moving average of the weights that is evaluated and kept; 0 keeps the weights."""

    patience: int = 0
    """Epochs without a better validation score after which training ends; 0 never ends early."""

    precision: str = "no"
    """Mixed precision: no, bf16 or fp16."""

    compile: bool = False
    """Whether torch.compile compiles the network."""

    augmentation: CloudAugmentation | None = None
    """How clouds of points are changed in every step; None leaves them as they are."""

    workers: int = 0
    """Processes that read the samples; 0 reads in the training process."""

    seed: int = 0
    """Of the order of the batches and of drop-out; with the same seed and machine a run is bit-identical."""

    @property
    def penalties(self) -> dict[str, float]:
        """The factors of all penalties, by their names."""
        return {name: getattr(self, name) for name in PENALTIES}

    def __post_init__(self) -> None:
        checked = {
            "epochs": check_integer("epochs", self.epochs),
            "batch_size": check_integer("batch_size", self.batch_size),
            "accumulate": check_integer("accumulate", self.accumulate),
            "lr": check_number("lr", self.lr, low=0.0),
            "weight_decay": check_number("weight_decay", self.weight_decay, low=0.0, closed=True),
            "warmup": check_number("warmup", self.warmup, low=0.0, high=1.0, closed=True),
            "clip": check_number("clip", self.clip, low=0.0),
            **{name: check_number(name, factor, low=0.0, closed=True) for name, factor in self.penalties.items()},
            "average": check_number("average", self.average, low=0.0, closed=True),
            "patience": check_integer("patience", self.patience, minimum=0),
            "precision": check_choice("precision", self.precision, PRECISIONS),
            "compile": check_bool("compile", self.compile),
            "workers": check_integer("workers", self.workers, minimum=0),
            "seed": check_integer("seed", self.seed, minimum=0),
        }
        for name, value in checked.items():  # plain numbers: numpy's have no JSON form
            object.__setattr__(self, name, value)
        if self.augmentation is not None and not isinstance(self.augmentation, CloudAugmentation):
            raise TypeError(f"`augmentation` must be a CloudAugmentation or None; got {describe(self.augmentation)}.")
        if self.average >= 1.0:
            raise ValueError(f"`average` must be below 1; got {self.average!r}.")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"`accumulate` (={self.accumulate}) must not exceed `batch_size` (={self.batch_size}): every part "
                "needs a sample."
            )
