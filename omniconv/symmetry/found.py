"""The symmetries that were found in a data set: of each signal a pose and a level, and the same of others."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_instance, check_integer, describe, require
from omniconv._files import write_whole
from omniconv._typing import Signal
from omniconv.groups import SO2, Elements, transform
from omniconv.models._pretrained import CONFIG, check_sum, check_tensors, read_config, read_tensors
from omniconv.models.pose_autoencoder import PoseAutoencoder
from omniconv.symmetry._family import Family, Level
from omniconv.symmetry.cyclic import Cyclic
from omniconv.symmetry.gaussian import Gaussian
from omniconv.symmetry.uniform import Uniform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEIGHBOURS = 45
"""From whose poses a level is estimated."""
ROWS = 1024
"""Signals that are encoded, or compared with all others, at a time."""
SHOWN = (0.1, 0.5, 0.9)
"""Quantiles of the levels that a report shows."""
BLUE, ORANGE = "#0072B2", "#D55E00"
FILE = "symmetries.safetensors"
TENSORS = ("centre", "codes", "poses", "levels")
OWN: tuple[type[Family], ...] = (Uniform, Gaussian, Cyclic)
"""The library's families of distributions."""


class Compared(NamedTuple):
    """Signals beside those of a data set. `codes`: (batch, code), of length 1. `poses`: (batch, 1), elements of SO2.

    `levels`: (batch, numbers), from the poses of those of the data set that are like them. `excess`: (batch,), by how
    much they are turned farther than these, in radians; negative within. What is above 0 is foreign.
    """

    codes: Tensor
    poses: Elements
    levels: Level
    excess: Tensor


@dataclass(frozen=True, eq=False)
class Symmetries:
    """By how much the signals of a data set are turned, each beside others of its kind: what `find_symmetries` finds.

    `codes`: (n, code), of length 1, centred: what a signal shows. `poses`: (n, 1), elements of SO2, from the centre of
    its kind. `levels`: (n, numbers) of `family`, from the poses of its `neighbours`.
    `evidence`: by name of a family, the library's and the one that was given, in nats per angle, how likely it makes
    the poses. `model`: which finds poses and codes. `centre`: the mean of its codes, which is taken from them.
    """

    model: PoseAutoencoder
    centre: Tensor
    codes: Tensor
    poses: Elements
    levels: Level
    family: Family
    neighbours: int
    evidence: dict[str, float]

    @classmethod
    def _of(cls, model: PoseAutoencoder, x: Signal, neighbours: int, family: Family | None) -> Symmetries:
        """What a trained model finds in the signals that it was trained on, `x`, which have its size."""
        codes, poses = encoded(model, x)
        centre = codes.mean(0)
        codes = F.normalize(codes - centre, dim=1)
        angles = poses[most_alike(codes, codes, neighbours, own=True), 0]
        tried = {kind.__name__: kind() for kind in OWN} | ({} if family is None else {type(family).__name__: family})
        evidence = {name: each.evidence(angles).mean().item() for name, each in tried.items()}
        chosen = tried[max(evidence, key=lambda name: evidence[name])] if family is None else family
        return cls(model, centre, codes, poses, chosen.estimate(angles), chosen, neighbours, evidence)

    def encode(self, x: Signal) -> tuple[Tensor, Elements]:
        """The codes (batch, code), of length 1, and the poses (batch, 1) of other signals.

        `x`: `batch channels *size`, as many channels, and the proportions of the data set's: other sizes are brought to
        that of the model. Raises `ValueError` or `TypeError` for others, and for what is not finite.
        """
        codes, poses = encoded(self.model, self._fitted(x))
        return F.normalize(codes - self.centre, dim=1), poses

    def compare(self, x: Signal) -> Compared:
        """Other signals beside those of the data set; what `x` may be, and what is raised, is as in `encode`."""
        codes, poses = self.encode(x)
        levels = self.family.estimate(self.poses[most_alike(codes, self.codes, self.neighbours, own=False), 0])
        return Compared(codes, poses, levels, self.family.excess(poses[:, 0], levels))

    def standardize(self, x: Signal) -> Signal:
        """The signals turned back by their poses, each to the centre of its kind, in their own size and dtype.

        What lies between samples is interpolated, and what comes from beyond the edges is 0. Raises as `encode` does.
        """
        _, poses = self.encode(x)
        group = self.model.lift.group
        return transform(x, group, group.inverse(poses.to(x.device)))

    def _fitted(self, x: Signal) -> Signal:
        """Signals as the model takes them."""
        check_floating_tensor("x", x)
        channels, size = self.model.lift.in_channels, self.model.size
        if x.ndim != SO2.dim + 2 or x.shape[1] != channels or min(x.shape[2:]) < 2:
            raise ValueError(f"`x` must be images (batch, {channels}, *size), 2 samples a side; got {describe(x)}.")
        longest = max(x.shape[2:])
        if any(abs(n * max(size) / longest - own) > 1 for n, own in zip(x.shape[2:], size, strict=True)):
            raise ValueError(
                f"`x` must be images of the proportions in which symmetries were found, those of {size}; got "
                f"{describe(x)}. Pad or crop them."
            )
        check_finite(x)
        small = x.detach().to(self.codes)
        return small if tuple(x.shape[2:]) == size else resampled(small, size)

    def save(self, folder: str | Path) -> None:
        """Write all of it into `folder`: the model as `save_pretrained` does, and what was found beside it.

        Raises `OSError` that names the folder if it cannot be written, `ValueError` for a family that has fields
        without a JSON form.
        """
        found = save({name: getattr(self, name).cpu().contiguous() for name in TENSORS}, metadata={"format": "pt"})
        told = {"family": described(self.family), "neighbours": self.neighbours, "evidence": self.evidence}
        told["sha256"] = hashlib.sha256(found).hexdigest()
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_whole(Path(folder) / FILE, found)  # first: with the config of another run it does not load
        self.model.save_pretrained(folder, extra={"symmetries": told})

    @classmethod
    def load(cls, folder: str | Path, *, family: Family | None = None) -> Symmetries:
        """What `save` wrote into `folder`. `family`: that of the file where it is not the library's own.

        Raises `FileNotFoundError` for a missing file, `ValueError` that names the file for one that is damaged or of
        another kind.
        """
        config, path = read_config(folder), Path(folder) / FILE
        told = config.get("symmetries")
        if not isinstance(told, dict) or not {"family", "neighbours", "evidence", "sha256"} <= told.keys():
            raise ValueError(f"{Path(folder) / CONFIG} tells of no symmetries: it is of another kind of network.")
        model = PoseAutoencoder.from_pretrained(folder)
        tensors = read_tensors(path)
        check_sum(path, told["sha256"])
        own = rebuilt(told["family"], Path(folder) / CONFIG, family)
        rows, code = len(tensors.get("poses", ())), int(model.arguments["code"])
        expected = {"centre": (code,), "codes": (rows, code), "poses": (rows, 1), "levels": (rows, len(own.numbers))}
        check_tensors(path, tensors, {name: torch.empty(shape) for name, shape in expected.items()})
        try:
            neighbours = check_integer("neighbours", told["neighbours"], minimum=2)
            evidence = {str(name): float(value) for name, value in dict(told["evidence"]).items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{Path(folder) / CONFIG} is damaged: {error}") from error
        return cls(model, **tensors, family=own, neighbours=min(neighbours, rows), evidence=evidence)

    def __str__(self) -> str:
        """A table of levels, in the order of their last number."""
        chosen = f"{len(self.poses):,} signals, {self.neighbours} neighbours each: {type(self.family).__name__} poses"
        others = [f"{name} {value:.3f}" for name, value in self.evidence.items()]
        ordered = self.levels[self.levels[:, -1].argsort()]
        shares = [(share, ordered[round(share * (len(ordered) - 1))]) for share in SHOWN]
        rows = [f"{share:>20.0%}  {self.family.tell(level)}" for share, level in shares]
        return "\n".join(
            [chosen, f"evidence in nats per angle: {', '.join(others)}", "", "share of the signals  level", *rows]
        )

    def figure(self, x: Signal, compared: Compared | None = None) -> Figure:
        """How poses and levels are distributed, and some of the signals `x` as they are and turned back.

        `compared`: what `compare(x)` gave, if poses and levels are to be those of `x`; None: those of the data set.
        Raises `ImportError` without matplotlib, and as `encode` does.
        """
        module: Any = require("matplotlib.figure", extra="plots", purpose="drawing symmetries")
        figure: Figure = module.Figure(figsize=(11.0, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
        poses, levels = (self.poses, self.levels) if compared is None else (compared.poses, compared.levels)
        left.hist(torch.rad2deg(poses[:, 0]).tolist(), bins=72, range=(-180, 180), color=BLUE)
        left.set(xlabel="pose in degrees", ylabel="signals", xlim=(-180, 180))
        middle.hist(torch.rad2deg(levels[:, -1]).tolist(), bins=60, color=ORANGE)
        middle.set(xlabel=f"{self.family.numbers[-1]} in degrees", ylabel="signals", xlim=(0, None))
        right.imshow(gallery(x[:12], self.standardize(x[:12])), cmap="gray")
        right.set(xticks=[], yticks=[], title="signals, and turned back")
        return figure


def described(family: Family) -> dict[str, Any]:
    """A family as JSON: the name of the class and its fields."""
    fields: dict[str, Any] = asdict(family) if is_dataclass(family) else {}
    return {"class": type(family).__name__, **fields}


def rebuilt(told: Any, path: Path, given: Family | None) -> Family:
    """The family that `described` described; only those of the library are looked up, others have to be given."""
    name = str(told.get("class")) if isinstance(told, dict) else repr(told)
    if given is not None:
        check_instance("family", given, Family)
        if type(given).__name__ != name:
            raise ValueError(f"`family` must be the {name} of which {path} tells; got {type(given).__name__}.")
        return given
    known = {kind.__name__: kind for kind in OWN}
    if name not in known:
        raise ValueError(
            f"{path} names a family {name!r} that is not the library's own. Give it: load(folder, family=...)."
        )
    try:
        return known[name](**{key: value for key, value in told.items() if key != "class"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not fit {name}: {error}") from error


@torch.no_grad()
def encoded(model: PoseAutoencoder, x: Signal) -> tuple[Tensor, Elements]:
    """Codes and poses of signals of the model's size, some at a time."""
    parts = [model.encode(some) for some in x.split(ROWS)]
    codes, poses = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(poses)


def most_alike(codes: Tensor, among: Tensor, count: int, *, own: bool) -> Tensor:
    """Indices of the `count` codes of `among` with the largest cosine, (n, count); `own`: these are the codes, of
    which none is its own neighbour.
    """
    found = [torch.empty(0, count, dtype=torch.long, device=codes.device)]
    for start in range(0, len(codes), ROWS):
        cosine = codes[start : start + ROWS] @ among.T
        if own:
            cosine.diagonal(start).fill_(-torch.inf)
        found.append(cosine.topk(count, dim=1).indices)
    return torch.cat(found)


def check_finite(x: Signal) -> None:
    """Raise `ValueError` for NaN and infinity, which would pass for an image that is not turned."""
    if not bool(x.isfinite().all()):
        raise ValueError("`x` must be finite; it holds NaN or infinity. Fill in what is missing first.")


def brought_down(x: Signal, resolution: int) -> Signal:
    """Signals whose longer axis has more samples than `resolution` at that resolution; others as they are."""
    longest = max(x.shape[2:])
    if longest <= resolution:
        return x
    return resampled(x, tuple(max(2, round(n * resolution / longest)) for n in x.shape[2:]))


def resampled(x: Signal, size: tuple[int, ...]) -> Signal:
    """Images at another size, smoothed first where that is smaller."""
    if not len(x):
        return x.new_empty(*x.shape[:2], *size)
    return F.interpolate(x.float(), size, mode="bilinear", antialias=True, align_corners=False)


def gallery(*rows: Signal) -> Any:
    """Rows of images side by side, as an array (height, width) or (height, width, 3) from 0 to 1."""
    tall = torch.cat([torch.cat(list(row.detach().float().cpu()), dim=2) for row in rows], dim=1)
    shown = tall if len(tall) == 3 else tall.mean(0, keepdim=True)
    low, high = shown.min(), shown.max()
    scaled = ((shown - low) / (high - low).clamp(min=1e-12)).movedim(0, -1)
    return scaled.squeeze(-1).numpy()
