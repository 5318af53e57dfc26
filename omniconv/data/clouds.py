"""Clouds of points in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omniconv._errors import check_integer, describe
from omniconv.data.samples import Array, Samples


class CloudSamples(Samples):
    """Clouds of points: the first `space` channels of a sample are the positions, the others the features, in float64.

    Positions may be large beside the extent of a cloud, such as coordinates on a map, and float32 would make one place
    of many.
    `positions`: an array (n, points, space), or a list of arrays (points, space), in one to three axes, of any numbers
    of points. `features`: an array (n, channels, points), or a list of arrays (channels, points); None for points that
    are nothing but where they are. `vectors`: so many features, of `space` channels each, the first ones, are vectors,
    such as normals, which turn when a cloud is turned.
    Raises `TypeError` for what is not numeric, `ValueError` for clouds that do not fit together, or without a point.

    >>> clouds = CloudSamples([np.zeros((40, 3)), np.ones((50, 3))], targets=["a", "b"])
    >>> len(clouds), clouds.space, clouds.features, clouds[1].shape
    (2, 3, 1, (3, 50))
    """

    def __init__(
        self,
        positions: Array | Sequence[Array],
        features: Array | Sequence[Array] | None = None,
        targets: Array | Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        *,
        vectors: int = 0,
    ):
        for name, value in (("positions", positions), ("features", features)):
            if value is not None and not isinstance(value, (np.ndarray, list, tuple)):
                raise TypeError(f"`{name}` must be an array, or a list of arrays; got {describe(value)[:80]}.")
        places = [checked_array("positions", one, index) for index, one in enumerate(positions)]
        known = None if features is None else [checked_array("features", one, i) for i, one in enumerate(features)]
        if known is not None and len(known) != len(places):
            raise ValueError(f"`features` must be of {len(places)} clouds, as `positions` are; got {len(known)}.")
        space = places[0].shape[1] if places else 1
        channels = 0 if not known else known[0].shape[0]
        for index, place in enumerate(places):
            check_place(place, index, space)
            if known is not None and known[index].shape != (channels, len(place)):
                raise ValueError(
                    f"`features` must be (channels, points), here ({channels}, {len(place)}), of cloud {index}; got "
                    f"{known[index].shape}."
                )
        sizes = np.array([[len(place)] for place in places], dtype=np.int64)
        super().__init__(space + channels, sizes, None if targets is None else np.asarray(targets), names)
        self.space, self.places, self.known = space, places, known
        self.vectors = check_vectors("vectors", vectors, space, channels)

    def __getitem__(self, index: int) -> Array:
        place = self.places[index].T.astype(np.float64)
        return place if self.known is None else np.concatenate([place, self.known[index]])


def checked_array(name: str, array: Any, index: int) -> Array:
    """One cloud's array of real numbers on two axes, or an error."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` must be arrays of real numbers; got {describe(array)[:80]} for cloud {index}.")
    if array.ndim != 2:
        wanted = "(points, dim)" if name == "positions" else "(channels, points)"
        raise ValueError(f"`{name}` must be {wanted} for every cloud; got shape {array.shape} for cloud {index}.")
    return array


def check_vectors(name: str, vectors: Any, space: int, channels: int) -> int:
    """Return a number of vectors among so many channels of features, or raise."""
    if check_integer(name, vectors, minimum=0) * space > channels:
        raise ValueError(
            f"`{name}` (={vectors}) in {space} axes need {vectors * space} channels of features; the clouds have "
            f"{channels}."
        )
    return int(vectors)


def check_place(place: Array, index: int, space: int) -> None:
    """Raise unless these are positions of at least one point in that many axes, finite."""
    if place.shape[1] != space or not 1 <= space <= 3:
        raise ValueError(
            f"`positions` must be (points, dim) with 1 to 3 axes, the same for all clouds; got {place.shape} for cloud "
            f"{index}."
        )
    if len(place) == 0:
        raise ValueError(f"cloud {index} has no point. Leave it out.")
    if place.dtype.kind == "f" and not np.isfinite(place).all():
        raise ValueError(f"`positions` must be finite; got NaN or infinity in cloud {index}. Leave such points out.")
