"""The symmetries that were found in a data set: of each signal a pose and a level, and the same of others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe, require
from omniconv._files import write_whole
from omniconv._typing import Signal
from omniconv.groups import SO2, Elements, transform
from omniconv.models._pretrained import CONFIG, read_config, read_tensors
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


@dataclass(frozen=True, eq=False)
class Symmetries:
    """By how much the signals of a data set are turned, each beside others of its kind.

    `codes`: (n, code), of length 1, centred: what a signal shows. `poses`: (n, 1), elements of SO2, from the centre of
    its kind. `levels`: (n, numbers) of `family`, from the poses of its `neighbours`.
    `evidence`: by family, the library's and the one that was given, in nats per angle, how likely it makes the poses.
    `model`: which finds poses and codes; `centre`: the mean of its codes, which is taken from them.
    `resolution`: of the longer axis, to which larger signals are brought down for it.
    """

    model: PoseAutoencoder
    centre: Tensor
    codes: Tensor
    poses: Elements
    levels: Level
    family: Family
    neighbours: int
    resolution: int
    evidence: dict[Family, float]

    @classmethod
    def of(
        cls,
        model: PoseAutoencoder,
        x: Signal,
        resolution: int,
        neighbours: int,
        family: Family | None,
    ) -> Symmetries:
        """What a trained model finds in the signals that it was trained on, `x`, brought down to the resolution."""
        codes, poses = encoded(model, x)
        centre = codes.mean(0)
        codes = F.normalize(codes - centre, dim=1)
        angles = poses[nearest(codes, codes, neighbours, own=True), 0]
        tried = dict.fromkeys([*(kind() for kind in OWN), *([] if family is None else [family])])
        evidence = {each: each.evidence(angles).mean().item() for each in tried}
        chosen = max(evidence, key=lambda each: evidence[each]) if family is None else family
        levels = chosen.estimate(angles)
        return cls(model, centre, codes, poses, levels, chosen, neighbours, resolution, evidence)

    def encode(self, x: Signal) -> tuple[Tensor, Elements]:
        """The codes and poses of other signals, of any size, with as many channels."""
        codes, poses = encoded(self.model, self._fitted(x))
        return F.normalize(codes - self.centre, dim=1), poses

    def level(self, x: Signal) -> Level:
        """The levels of other signals, (batch, numbers): from the poses of those of the data set that are like them."""
        return self._level(self.encode(x)[0])

    def _level(self, codes: Tensor) -> Level:
        return self.family.estimate(self.poses[nearest(codes, self.codes, self.neighbours, own=False), 0])

    def excess(self, x: Signal) -> Tensor:
        """By how much signals are turned farther than their like in the data set, in radians, (batch,); negative
        within. What is above 0 is foreign.
        """
        codes, poses = self.encode(x)
        return self.family.excess(poses[:, 0], self._level(codes))

    def standardize(self, x: Signal) -> Signal:
        """The signals turned back by their poses, each to the centre of its kind, interpolated."""
        _, poses = self.encode(x)
        group = self.model.lift.group
        return transform(x, group, group.inverse(poses.to(x)))

    def _fitted(self, x: Signal) -> Signal:
        """Signals as the model takes them."""
        check_floating_tensor("x", x)
        channels = self.model.lift.in_channels
        if x.ndim != SO2.dim + 2 or x.shape[1] != channels:
            raise ValueError(f"`x` must be images (batch, {channels}, *size); got {describe(x)}.")
        small = brought_down(x.detach(), self.resolution)
        if tuple(small.shape[2:]) != self.model.size:
            raise ValueError(
                f"`x` must be images that are {self.model.size} at the resolution {self.resolution}, as those in which "
                f"symmetries were found; got {describe(x)}, which is {tuple(small.shape[2:])}."
            )
        return small.to(self.codes)

    def __str__(self) -> str:
        """A table."""
        chosen = f"{len(self.poses):,} signals, {self.neighbours} neighbours each: {type(self.family).__name__} poses"
        others = [f"{type(each).__name__} {value:.3f}" for each, value in self.evidence.items()]
        lines = [chosen, f"evidence in nats per angle: {', '.join(others)}", "", "share of the signals  level"]
        ordered = self.levels[self.levels[:, -1].argsort()]
        lines += [f"{share:>20.0%}  {self.family.tell(ordered[round(share * (len(ordered) - 1))])}" for share in SHOWN]
        return "\n".join(lines)

    def save(self, folder: str | Path) -> None:
        """Write all of it into `folder`: the model as `save_pretrained` does, and what was found beside it.

        Raises `OSError` that names the folder if it cannot be written.
        """
        evidence = {type(each).__name__: value for each, value in self.evidence.items()}
        told = {"family": described(self.family), "neighbours": self.neighbours, "resolution": self.resolution}
        self.model.save_pretrained(folder, extra={"symmetries": {**told, "evidence": evidence}})
        tensors = {name: getattr(self, name).cpu().contiguous() for name in TENSORS}
        write_whole(Path(folder) / FILE, save(tensors, metadata={"format": "pt"}))

    @classmethod
    def load(cls, folder: str | Path, *, family: Family | None = None) -> Symmetries:
        """What `save` wrote into `folder`. `family`: that of the file where it is not the library's own.

        Raises `FileNotFoundError` for a missing file, `ValueError` that names the file for one that is damaged or of
        another kind.
        """
        config, path = read_config(folder), Path(folder) / FILE
        told = config.get("symmetries")
        if not isinstance(told, dict) or not {"family", "neighbours", "resolution", "evidence"} <= told.keys():
            raise ValueError(f"{Path(folder) / CONFIG} tells of no symmetries: it is of another kind of network.")
        model = PoseAutoencoder.from_pretrained(folder)
        tensors = read_tensors(path)
        if set(tensors) != set(TENSORS):
            raise ValueError(
                f"{path} must hold {', '.join(TENSORS)}; it holds {', '.join(sorted(tensors)) or 'nothing'}."
            )
        own = family if family is not None else rebuilt(told["family"], Path(folder) / CONFIG)
        known = {kind.__name__: kind() for kind in OWN} | {type(own).__name__: own}
        evidence = {known[name]: value for name, value in told["evidence"].items() if name in known}
        return cls(
            model,
            **tensors,
            family=own,
            neighbours=told["neighbours"],
            resolution=told["resolution"],
            evidence=evidence,
        )

    def figure(self, x: Signal) -> Figure:
        """How poses and levels are distributed, and some of the signals `x` as they are and turned back.

        Raises `ImportError` without matplotlib.
        """
        module: Any = require("matplotlib.figure", extra="plots", purpose="drawing symmetries")
        figure: Figure = module.Figure(figsize=(11.0, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
        left.hist(torch.rad2deg(self.poses[:, 0]).tolist(), bins=72, range=(-180, 180), color=BLUE)
        left.set(xlabel="pose in degrees", ylabel="signals", xlim=(-180, 180))
        middle.hist(torch.rad2deg(self.levels[:, -1]).tolist(), bins=60, color=ORANGE)
        middle.set(xlabel=f"{self.family.numbers[-1]} in degrees", ylabel="signals", xlim=(0, None))
        right.imshow(gallery(x[:12], self.standardize(x[:12])), cmap="gray")
        right.set(xticks=[], yticks=[], title="signals, and turned back")
        return figure


def described(family: Family) -> dict[str, Any]:
    """A family as JSON: the name of the class and its fields."""
    fields: dict[str, Any] = asdict(family) if is_dataclass(family) else {}
    return {"class": type(family).__name__, **fields}


def rebuilt(told: Any, path: Path) -> Family:
    """The family that `described` described; only those of the library are looked up."""
    known = {kind.__name__: kind for kind in OWN}
    name = told.get("class") if isinstance(told, dict) else None
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


def nearest(codes: Tensor, among: Tensor, count: int, *, own: bool) -> Tensor:
    """Indices of the `count` codes of `among` with the largest cosine, (n, count); `own`: these are the codes, of
    which none is its own neighbour.
    """
    found = []
    for start in range(0, len(codes), ROWS):
        cosine = codes[start : start + ROWS] @ among.T
        if own:
            cosine.diagonal(start).fill_(-torch.inf)
        found.append(cosine.topk(count, dim=1).indices)
    return torch.cat(found) if found else torch.empty(0, count, dtype=torch.long, device=codes.device)


def brought_down(x: Signal, resolution: int) -> Signal:
    """Signals whose longer axis has more samples than `resolution` at that resolution, smoothed first; others as they
    are.
    """
    longest = max(x.shape[2:])
    if longest <= resolution:
        return x
    size = [max(2, round(n * resolution / longest)) for n in x.shape[2:]]
    return F.interpolate(x.float(), size, mode="bilinear", antialias=True, align_corners=False)


def gallery(*rows: Signal) -> Any:
    """Rows of images side by side, as an array (height, width) or (height, width, 3) from 0 to 1."""
    tall = torch.cat([torch.cat(list(row.float().cpu()), dim=2) for row in rows], dim=1)
    shown = tall if len(tall) == 3 else tall.mean(0, keepdim=True)
    low, high = shown.min(), shown.max()
    scaled = ((shown - low) / (high - low).clamp(min=1e-12)).movedim(0, -1)
    return scaled.squeeze(-1).numpy()
