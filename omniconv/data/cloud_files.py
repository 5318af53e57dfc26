"""Files of points, `.ply` and `.xyz`, and of surfaces, `.off` and `.ply`, of which points are drawn."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from omniconv._errors import require
from omniconv.data.header import Header, RefusedFileError
from omniconv.data.samples import Array

SURFACE_POINTS = 1024
"""Drawn of every surface, evenly by area; with a seed that is the file's name, so that a file is always the same."""

PLACE = ("x", "y", "z")
NORMAL = ("nx", "ny", "nz")


def inspect_cloud(file: Path) -> Header:
    """Channels, the first three of which are positions, and points of a file."""
    values, vectors = read_cloud(file)
    return Header(len(values), (values.shape[1],), vectors=vectors)


def decode_cloud(file: Path, channels: int) -> Array:
    """Positions, then features, `channels points`: of a surface its normals, else whatever a file has of its points.

    `.ply`: the properties of the vertices, normals first, the others in the order of the file, colours of 8 bits from 0
    to 1. `.xyz`: a line of numbers for every point, the first three its position.
    """
    return read_cloud(file)[0]


def read_cloud(file: Path) -> tuple[Array, int]:
    """The same, and how many of the features, of three channels each, are vectors: normals, where they are known."""
    suffix = file.suffix.lower()
    if suffix == ".xyz":
        return from_table(file), 0  # its columns have no names
    if suffix == ".ply":
        plyfile: Any = require("plyfile", extra="data", purpose="reading .ply files")
        read = plyfile.PlyData.read(str(file))
        elements = {element.name: element for element in read.elements}
        if "face" not in elements or elements["face"].count == 0:
            return from_vertices(file, elements)
    return from_surface(file)


def from_table(file: Path) -> Array:
    """The lines of a file of numbers."""
    pandas: Any = require("pandas", extra="data", purpose="reading .xyz files")
    rows = pandas.read_csv(file, sep=r"\s+", header=None, comment="#", dtype=str).to_numpy()
    if any(value != value for value in rows.flat):
        raise RefusedFileError(f"{file} must hold as many numbers on every line; some lines are shorter.")
    try:
        values = rows.astype(np.float64)
    except ValueError as error:
        raise RefusedFileError(
            f"{file} must hold a line of numbers for every point, its position first: {error}. Leave out headings "
            "and names."
        ) from error
    return checked(file, values.T)


def from_vertices(file: Path, elements: dict[str, Any]) -> tuple[Array, int]:
    """The vertices of a `.ply` file, with all their properties, and whether there are normals among them."""
    if "vertex" not in elements:
        raise RefusedFileError(f"{file} has no vertices.")
    vertices = elements["vertex"].data
    names = list(vertices.dtype.names or ())
    lists = [name for name in names if vertices.dtype[name].kind == "O"]
    if lists or not set(PLACE) <= set(names):
        raise RefusedFileError(f"{file}: vertices must have x, y and z, and no lists; they have {', '.join(names)}.")
    first = (*PLACE, *NORMAL) if set(NORMAL) <= set(names) else PLACE
    ordered = [*first, *(name for name in names if name not in first)]
    bytes_of = [name not in PLACE and vertices.dtype[name] == np.uint8 for name in ordered]
    columns = [vertices[name] / np.float64(255 if byte else 1) for name, byte in zip(ordered, bytes_of, strict=True)]
    return checked(file, np.stack(columns)), int(first != PLACE)


def from_surface(file: Path) -> tuple[Array, int]:
    """Points drawn evenly of a surface, with their normals, one vector; of a file without faces its vertices."""
    trimesh: Any = require("trimesh", extra="data", purpose="reading surfaces")
    mesh = trimesh.load_mesh(str(file), process=False)
    if len(mesh.faces) == 0:
        return checked(file, np.asarray(mesh.vertices, dtype=np.float64).T), 0
    if not mesh.area > 0:
        raise RefusedFileError(f"{file} is a surface without area: no points can be drawn of it.")
    places, faces = trimesh.sample.sample_surface(mesh, SURFACE_POINTS, seed=zlib.crc32(file.name.encode()))
    corners = np.asarray(mesh.vertices, dtype=np.float64)[np.asarray(mesh.faces)[faces]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return checked(file, np.concatenate([np.asarray(places), normals], axis=1).T), 1


def checked(file: Path, values: Array) -> Array:
    """Values `channels points`, or an error where these are no points, or not anywhere."""
    if values.shape[0] < 3 or values.shape[1] == 0:
        raise RefusedFileError(f"{file} must hold points in three axes; it holds {values.shape[1]} of {len(values)}.")
    if not np.isfinite(values).all():
        raise RefusedFileError(f"{file} holds points with NaN or infinity. Leave them out.")
    return values
