"""Clouds in memory and in files: nothing is lost, and every source gives positions first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import torch

from omniconv.data import CloudSamples, read, without_gaps
from omniconv.training.batches import Signals, collate

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 4]], dtype=np.float64)
FACES = ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))


def off(path: Path, corners: np.ndarray = CORNERS, faces: tuple[tuple[int, ...], ...] = FACES) -> None:
    lines = ["OFF", f"{len(corners)} {len(faces)} 0", *(" ".join(map(str, corner)) for corner in corners)]
    path.write_text("\n".join([*lines, *(f"3 {' '.join(map(str, face))}" for face in faces)]) + "\n")


def ply(path: Path, rows: np.ndarray, *, text: bool = True) -> None:
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")], text=text).write(str(path))


def test_positions_come_first_and_then_the_features() -> None:
    places, features = [np.arange(6.0).reshape(2, 3), np.ones((1, 3))], [np.zeros((2, 2)), np.full((2, 1), 7)]
    samples = CloudSamples(places, features, ["a", "b"])
    assert (samples.space, samples.channels, samples.features, samples.sizes.tolist()) == (3, 5, 2, [[2], [1]])
    assert samples[0].tolist() == [[0, 3], [1, 4], [2, 5], [0, 0], [0, 0]]
    assert samples.subset([1]).space == without_gaps(samples, "mean").space == 3
    assert samples.subset([1])[0].tolist() == [[1], [1], [1], [7], [7]]


def test_readers_say_which_features_are_vectors(tmp_path: Path) -> None:
    """Normals of surfaces, and of vertices, which come first; whoever passes samples on keeps that."""
    samples = CloudSamples([np.ones((2, 3))] * 2, [np.ones((7, 2))] * 2, vectors=2)
    assert [kept.vectors for kept in (samples, samples.subset([1]), without_gaps(samples, "mean"))] == [2, 2, 2]
    assert CloudSamples([np.ones((2, 3))]).vectors == 0
    with pytest.raises(ValueError, match=r"`vectors` \(=2\) in 3 axes need 6 channels of features; the clouds have 5"):
        CloudSamples([np.ones((2, 3))], [np.ones((5, 2))], vectors=2)
    off(tmp_path / "surface.off")
    assert read(tmp_path).vectors == 1
    kinds = [(name, "f4") for name in ("x", "y", "z", "red", "nz", "nx", "ny")]
    (tmp_path / "vertices").mkdir()
    ply(tmp_path / "vertices" / "one.ply", np.array([(1, 2, 3, 4, 5, 6, 7)], dtype=kinds))
    vertices = read(tmp_path / "vertices")
    assert (vertices.vectors, vertices[0].ravel().tolist()) == (1, [1, 2, 3, 6, 7, 5, 4])
    (tmp_path / "vertices" / "two.xyz").write_text("0 1 2 0 0 1 9\n")
    with pytest.raises(ValueError, match=r"features that are vectors, such as normals, of the files differ: .* has 1"):
        read(tmp_path / "vertices")


def test_a_batch_has_positions_and_a_mask() -> None:
    samples = CloudSamples([np.ones((2, 3)), 2 * np.ones((1, 3))])
    signals = Signals(samples)
    batch = collate([signals[0], signals[1]], samples.space)
    assert batch.positions is not None
    assert batch.mask is not None
    assert batch.positions.tolist() == [[[1] * 3] * 2, [[2] * 3, [0] * 3]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.signals.shape == (2, 1, 2)
    assert batch.signals.eq(1).all()
    moved = batch.to(torch.device("meta"))
    assert moved.positions is not None
    assert moved.positions.is_meta


def test_bad_clouds() -> None:
    with pytest.raises(ValueError, match="cloud 1 has no point"):
        CloudSamples([np.ones((2, 3)), np.ones((0, 3))])
    with pytest.raises(ValueError, match=r"`positions` must be \(points, dim\) with 1 to 3 axes"):
        CloudSamples([np.ones((2, 3)), np.ones((2, 2))])
    with pytest.raises(ValueError, match="`positions` must be finite; got NaN or infinity in cloud 0"):
        CloudSamples([np.full((2, 3), np.nan)])
    with pytest.raises(ValueError, match=r"`features` must be \(channels, points\), here \(1, 2\), of cloud 0"):
        CloudSamples([np.ones((2, 3))], [np.ones((1, 3))])
    with pytest.raises(ValueError, match="`features` must be of 1 clouds"):
        CloudSamples([np.ones((2, 3))], [np.ones((1, 2))] * 2)
    with pytest.raises(TypeError, match="`positions` must be an array, or a list of arrays"):
        CloudSamples(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`positions` must be arrays of real numbers"):
        CloudSamples([np.array([["a", "b"]])])
    with pytest.raises(ValueError, match=r"`positions` must be \(points, dim\) for every cloud"):
        CloudSamples([np.ones(3)])
    gap = CloudSamples([np.ones((2, 3))], [np.array([[1.0, np.nan]])])
    with pytest.raises(ValueError, match=r'cloud 0 contains NaN\. Use missing="mean"') as refused:
        without_gaps(gap, "raise")[0]
    assert "interpolate" not in str(refused.value)
    assert without_gaps(gap, "mean")[0][3].tolist() == [1, 1]
    with pytest.raises(ValueError, match="these samples are clouds of points"):
        without_gaps(CloudSamples([np.ones((2, 3))]), "interpolate")


def test_npz_of_equal_and_of_joined_clouds(tmp_path: Path) -> None:
    places, features = np.random.default_rng(0).random((4, 5, 2)), np.ones((4, 3, 5))
    np.savez(tmp_path / "equal.npz", positions_train=places, X_train=features, y_train=[0, 1, 0, 1])
    samples = read(tmp_path / "equal.npz")
    assert (samples.space, samples.features, samples[0].shape) == (2, 3, (5, 5))
    assert samples.targets is not None
    np.testing.assert_allclose(samples[3][:2], places[3].T, rtol=1e-6)
    joined = places.reshape(-1, 2)
    np.savez(tmp_path / "joined.npz", positions=joined, lengths=[8, 12], y=["a", "b"])
    samples = read(tmp_path / "joined.npz")
    assert samples.sizes.tolist() == [[8], [12]]
    np.testing.assert_allclose(samples[1].T, joined[8:], rtol=1e-6)
    np.savez(tmp_path / "wrong.npz", positions=joined, lengths=[8, 11])
    with pytest.raises(ValueError, match="lengths must be at least 1 and sum to the 20"):
        read(tmp_path / "wrong.npz")
    np.savez(tmp_path / "shared.npz", X_train=features, positions=places)
    with pytest.raises(
        ValueError, match=r"positions beside arrays of splits, such as X_train\. Call it positions_train"
    ):
        read(tmp_path / "shared.npz")
    np.savez(tmp_path / "unsplit.npz", X=features, positions_train=places)
    with pytest.raises(ValueError, match="holds X beside arrays of splits"):
        read(tmp_path / "unsplit.npz")
    np.savez(tmp_path / "wrong.npz", positions=places, lengths=[5, 5, 5, 5])
    with pytest.raises(ValueError, match="with lengths, positions are joined"):
        read(tmp_path / "wrong.npz")
    np.savez(tmp_path / "both.npz", positions=places, times=np.arange(5))
    with pytest.raises(ValueError, match="clouds of points or series, not both"):
        read(tmp_path / "both.npz")
    np.savez(tmp_path / "targets.npz", positions=places, y=[0, 1])
    with pytest.raises(ValueError, match="one target per signal, 4"):
        read(tmp_path / "targets.npz")


@pytest.mark.parametrize("joined", [False, True])
def test_npz_with_a_mask(tmp_path: Path, joined: bool) -> None:
    """What is padded is no point, whatever stands there."""
    random = np.random.default_rng(0)
    places, features, mask = random.random((3, 5, 2)), random.random((3, 4, 5)), random.random((3, 5)) < 0.6
    mask[:, 2] = True
    places[~mask] = np.nan
    arrays: dict[str, Any] = {"positions": places, "X": features, "mask": mask}
    if joined:
        arrays = {"positions": places.reshape(15, 2), "X": np.concatenate(features, 1), "mask": mask.ravel()}
        arrays["lengths"] = np.array([5, 5, 5])
    np.savez(tmp_path / "a.npz", **arrays)
    samples = read(tmp_path / "a.npz")
    assert samples.sizes[:, 0].tolist() == mask.sum(1).tolist()
    for row in range(3):
        np.testing.assert_array_equal(samples[row][:2].T, places[row][mask[row]])
        np.testing.assert_array_equal(samples[row][2:], features[row][:, mask[row]].astype(np.float64))
    np.savez(tmp_path / "a.npz", **(arrays | {"mask": mask.T}))
    with pytest.raises(ValueError, match="its mask must be bool"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **arrays | {"mask": arrays["mask"].astype(int)})
    with pytest.raises(ValueError, match=r"got int64 of shape .*mask\.astype\(bool\)"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("text", [True, False])
def test_ply_with_all_its_properties(tmp_path: Path, text: bool) -> None:
    kinds = [("nx", "f4"), ("x", "f4"), ("y", "f4"), ("z", "f8"), ("red", "u1")]
    rows = np.array([(0.5, 1, 2, 3, 255), (-0.5, 4, 5, 6, 51)], dtype=kinds)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        ply(tmp_path / label / "one.ply", rows, text=text)
    samples = read(tmp_path)
    assert (samples.space, samples.channels) == (3, 5)
    np.testing.assert_allclose(samples[0], np.array([[1, 4], [2, 5], [3, 6], [0.5, -0.5], [1, 0.2]]), rtol=1e-6)


def test_xyz(tmp_path: Path) -> None:
    (tmp_path / "one.xyz").write_text("# a scan\n0 1 2 9\n3\t4  5 8\n")
    samples = read(tmp_path)
    assert samples[0].tolist() == [[0, 3], [1, 4], [2, 5], [9, 8]]
    (tmp_path / "one.xyz").write_text("0 1 2 9\n3 4 5\n")
    with pytest.raises(ValueError, match="as many numbers on every line"):
        read(tmp_path)
    (tmp_path / "one.xyz").write_text("2\nwater\nO 0 0 0\nH 1 0 0\n")
    with pytest.raises(ValueError, match=r"one\.xyz"):
        read(tmp_path)


def test_points_of_a_surface_lie_on_it_evenly_and_are_always_the_same(tmp_path: Path) -> None:
    off(tmp_path / "tetrahedron.off")
    samples = read(tmp_path)
    points, normals = samples[0][:3].T.astype(np.float64), samples[0][3:].T.astype(np.float64)
    assert points.shape == normals.shape == (1024, 3)
    np.testing.assert_array_equal(samples[0], read(tmp_path)[0])
    on = [(points[:, axis] == 0) & (np.abs(normals[:, axis]) > 0.999) for axis in range(3)]
    slope = points @ [1, 0.5, 0.25]  # 1 on the slanted face
    on.append(np.isclose(slope, 1, atol=1e-5) & np.isclose(np.abs(normals @ [4, 2, 1]) / np.sqrt(21), 1, atol=1e-5))
    assert np.any(on, axis=0).all()
    areas = np.array([4, 2, 1, np.sqrt(21)])
    np.testing.assert_allclose(np.sum(on, axis=1) / 1024, areas / areas.sum(), atol=0.05)


def test_a_surface_in_a_ply_file(tmp_path: Path) -> None:
    vertices = np.array([tuple(corner) for corner in CORNERS], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    faces = np.array([(face,) for face in FACES], dtype=[("vertex_indices", "i4", (3,))])
    elements = [plyfile.PlyElement.describe(vertices, "vertex"), plyfile.PlyElement.describe(faces, "face")]
    plyfile.PlyData(elements, text=True).write(str(tmp_path / "tetrahedron.ply"))
    assert read(tmp_path)[0].shape == (6, 1024)


def test_damaged_and_unfit_files(tmp_path: Path) -> None:
    off(tmp_path / "one.off", np.zeros((4, 3)))
    with pytest.raises(ValueError, match="surface without area"):
        read(tmp_path)
    (tmp_path / "one.off").write_text("OFF\n3 1 0\n0 0")
    with pytest.raises(ValueError, match=r"one\.off"):
        read(tmp_path)
    (tmp_path / "one.off").unlink()
    ply(tmp_path / "one.ply", np.array([(1, 2)], dtype=[("x", "f4"), ("y", "f4")]))
    with pytest.raises(ValueError, match="must have x, y and z"):
        read(tmp_path)
    ply(tmp_path / "one.ply", np.array([(1, 2, np.nan)], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        read(tmp_path)
