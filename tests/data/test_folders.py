from __future__ import annotations

import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import Samples, has_split, read
from omniconv.data.folders import FileSamples, read_folder

Image: Any = pytest.importorskip("PIL.Image")
soundfile: Any = pytest.importorskip("soundfile")
nibabel: Any = pytest.importorskip("nibabel")

ORIENTATIONS: dict[int, Callable[[Any], Any]] = {  # how the stored pixels become upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: np.rot90(pixels, 1),
}


def noise(*shape: int, dtype: str = "uint8") -> Any:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def picture(path: Path, pixels: Any | None = None) -> Any:
    pixels = noise(4, 5) if pixels is None else pixels
    Image.fromarray(pixels).save(place(path))
    return pixels


def sound(path: Path, signal: Any | None = None, rate: int = 8000) -> Any:
    signal = np.random.default_rng(0).uniform(-1, 1, (2, 50)).astype(np.float32) if signal is None else signal
    soundfile.write(place(path), signal.T, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return signal


def only(path: Path) -> Any:
    samples = read(path)
    assert len(samples) == 1
    assert samples[0].shape == (samples.channels, *samples.sizes[0])
    assert samples[0].dtype == np.float32
    return samples[0]


def targets(samples: Samples) -> list[Any]:
    assert samples.targets is not None
    return samples.targets.tolist()


def test_classes_are_folders_and_the_order_is_fixed(tmp_path: Path) -> None:
    for name in ("dog/2.png", "dog/10.PNG", "cat/b.bmp", "cat/a.jpg", "cat/.hidden.png", "cat/notes.txt", "Thumbs.db"):
        picture(tmp_path / name) if name.lower().endswith(("png", "bmp", "jpg")) else place(tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    samples = read(tmp_path)
    assert samples.names == [str(Path(name)) for name in ("cat/a.jpg", "cat/b.bmp", "dog/10.PNG", "dog/2.png")]
    assert targets(samples) == ["cat", "cat", "dog", "dog"]
    assert isinstance(samples, FileSamples)
    assert samples.rate is None


def test_a_flat_folder_has_no_targets(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    samples = read(str(tmp_path))
    assert (samples.targets, samples.names) == (None, ["a.png", "b.png"])


def test_splits_are_folders(tmp_path: Path) -> None:
    for name, value in (("train/cat/1.png", 1), ("train/dog/1.png", 2), ("val/cat/1.png", 3), ("test/dog/1.png", 4)):
        picture(tmp_path / name, np.full((2, 2), value, np.uint8))
    (tmp_path / "README.md").touch()
    assert all(has_split(tmp_path, split) for split in ("train", "valid", "test"))
    for split, expected, classes in (
        ("train", [1, 2], ["cat", "dog"]),
        ("valid", [3], ["cat"]),
        ("test", [4], ["dog"]),
    ):
        samples = read(tmp_path, split=split)
        assert [round(255 * samples[i].max().item()) for i in range(len(samples))] == expected
        assert targets(samples) == classes


def test_splits_without_classes(tmp_path: Path) -> None:
    picture(tmp_path / "Train" / "1.png")
    assert read(tmp_path).targets is None
    assert not has_split(tmp_path, "test")
    with pytest.raises(ValueError, match=r'split="test": .* has no such part, only "train"'):
        read(tmp_path, split="test")
    with pytest.raises(ValueError, match="`split` must be one of 'train'; got 'test'"):
        read_folder(tmp_path, "test")


def test_a_class_called_test(tmp_path: Path) -> None:
    for name in ("test", "control"):
        picture(tmp_path / name / "1.png")
    assert targets(read(tmp_path)) == ["control", "test"]
    assert not has_split(tmp_path, "test")


def test_the_channels_are_those_of_all_splits(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "test" / "1.png", noise(4, 5, 3))
    assert read(tmp_path).channels == read(tmp_path, split="test").channels == 3


def test_images_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    samples = read(tmp_path)
    (tmp_path / "a.png").unlink()
    assert samples[1].shape == (1, 4, 5)
    with pytest.raises(ValueError, match=r"a\.png cannot be read \(FileNotFoundError"):
        samples[0]
    picture(tmp_path / "b.png", noise(3, 3))
    with pytest.raises(ValueError, match=r"b\.png has changed since .* was \(1, 4, 5\) and is \(1, 3, 3\)"):
        samples[1]


def test_only_headers_are_read_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.jpg", "c.tif", "d.gif", "e.webp"):
        picture(tmp_path / name)
    modules: Any = pytest.importorskip("PIL.ImageFile")

    def refuse(image: Any) -> None:
        raise AssertionError(f"the pixels of {image.filename} were read")

    monkeypatch.setattr(modules.ImageFile, "load", refuse)
    assert len(read(tmp_path)) == 5


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "webp"])
def test_colours(tmp_path: Path, ending: str) -> None:
    pixels = noise(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_allclose(only(tmp_path) * 255, pixels.transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
def test_grey(tmp_path: Path, ending: str) -> None:
    pixels = picture(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(only(tmp_path)[0] * 255, pixels, rtol=1e-6)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits(tmp_path: Path, ending: str) -> None:
    pixels = picture(tmp_path / f"a.{ending}", noise(4, 5, dtype="uint16"))
    np.testing.assert_allclose(only(tmp_path)[0] * 65535, pixels, rtol=1e-6)


def test_black_and_white(tmp_path: Path) -> None:
    pixels = noise(4, 5) > 99
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(tmp_path)[0], pixels)


def test_floats_stay_as_they_are(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.tif", np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32) * 1000)
    np.testing.assert_array_equal(only(tmp_path)[0], pixels)


def test_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(noise(4, 5, 3)).quantize(8)
    image.save(tmp_path / "a.png")
    np.testing.assert_allclose(only(tmp_path) * 255, np.asarray(image.convert("RGB")).transpose(2, 0, 1), rtol=1e-6)
    image.save(tmp_path / "a.png", transparency=3)
    np.testing.assert_array_equal(only(tmp_path)[3] == 0, np.asarray(image) == 3)


def test_images_are_brought_to_the_most_channels(tmp_path: Path) -> None:
    grey, deep = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", noise(4, 5, dtype="uint16"))
    colours = picture(tmp_path / "c.png", noise(2, 3, 3))
    assert read(tmp_path).channels == 3
    alpha = picture(tmp_path / "d.png", noise(6, 2, 4))
    samples = read(tmp_path)
    assert (samples.channels, samples.equal) == (4, False)
    for index, (pixels, scale) in enumerate([(grey, 255), (deep, 65535), (colours, 255), (alpha, 255)]):
        expected = np.ones(samples[index].shape)
        if pixels.ndim == 2:
            expected[:3] = pixels / scale
        else:
            expected[: pixels.shape[2]] = pixels.transpose(2, 0, 1) / scale
        np.testing.assert_allclose(samples[index], expected, rtol=1e-6)


def test_grey_with_alpha(tmp_path: Path) -> None:
    pixels = noise(4, 5, 2)
    Image.fromarray(pixels, mode="LA").save(tmp_path / "a.png")
    expected = pixels[..., [0, 0, 0, 1]].transpose(2, 0, 1)
    np.testing.assert_allclose(only(tmp_path) * 255, expected, rtol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_images_stand_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    pixels = noise(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(pixels).convert("RGB").save(tmp_path / f"a.{ending}", exif=exif, **options)
    np.testing.assert_allclose(only(tmp_path)[1] * 255, ORIENTATIONS[orientation](pixels), rtol=1e-6)


def test_an_orientation_behind_the_pixels(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", noise(4, 6))
    content = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    np.testing.assert_allclose(only(tmp_path)[0] * 255, np.rot90(pixels, -1), rtol=1e-6)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
@pytest.mark.parametrize("corrupt", ["raise", "skip"])
def test_films_are_refused(tmp_path: Path, ending: str, corrupt: str) -> None:
    frames = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (0, 99, 200)]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    picture(tmp_path / "b.png")
    with pytest.raises(
        ValueError, match=rf"a\.{ending} holds 3 images, such as a film. Save each in a file of its own"
    ):
        read(tmp_path, corrupt=corrupt)


def test_a_photograph_with_a_preview(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (200, 0)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(only(tmp_path), 200 / 255, atol=0.01)


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\x00" + bytes(range(12)))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ValueError, match=r"a\.png has 16 bits for each colour, of which half would be lost"):
        read(tmp_path)


def test_integers_without_a_scale_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.tif", noise(4, 5, dtype="int32"))
    with pytest.raises(ValueError, match=r"a\.tif has integers of 32 bits, without a scale"):
        read(tmp_path)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_audio(tmp_path: Path, ending: str) -> None:
    steps = np.arange(8000) / 8000
    signal = np.stack([np.sin(2 * np.pi * 220 * steps), 0.3 * np.sin(2 * np.pi * 330 * steps)]).astype(np.float32)
    sound(tmp_path / "a" / f"1.{ending}", signal)
    samples = read(tmp_path)
    assert isinstance(samples, FileSamples)
    assert (samples.rate, samples.channels, targets(samples)) == (8000, 2, ["a"])
    assert samples[0].shape == (2, samples.sizes[0, 0])
    tolerance = {"wav": 0, "flac": 1e-4, "ogg": 0.1, "mp3": 0.1}[ending]
    if ending != "mp3":  # mp3 puts silence around it
        np.testing.assert_allclose(samples[0], signal, atol=tolerance)


def test_audio_of_unequal_length(tmp_path: Path) -> None:
    signals = [sound(tmp_path / f"{length}.wav", np.ones((1, length), np.float32) / length) for length in (10, 30)]
    samples = read(tmp_path)
    assert samples.sizes.tolist() == [[10], [30]]
    for index, signal in enumerate(signals):
        np.testing.assert_array_equal(samples[index], signal)


def test_sampling_rates_and_channels_are_one(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    sound(tmp_path / "c.wav", rate=16000)
    with pytest.raises(
        ValueError, match=r"sampling rates of the files differ: .*a\.wav has 8000, .*c\.wav has 16000\. Resample"
    ):
        read(tmp_path)
    sound(tmp_path / "c.wav", np.zeros((1, 9), np.float32))
    with pytest.raises(ValueError, match=r"numbers of channels of the files differ: .*a\.wav has 2, .*c\.wav has 1"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4)])
def test_volumes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    volume = noise(*shape)
    np.save(tmp_path / "a.npy", volume)
    np.testing.assert_array_equal(only(tmp_path), volume if len(shape) == 4 else volume[None])


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_volumes_of_medicine(tmp_path: Path, ending: str, shape: tuple[int, ...]) -> None:
    volume = noise(*shape, dtype="int16")
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(only(tmp_path), volume.transpose(3, 0, 1, 2) if len(shape) == 4 else volume[None])


def test_the_scale_of_a_volume(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, -1)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(only(tmp_path)[0], nibabel.load(tmp_path / "a.nii").get_fdata(), rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), r"a volume must be .* got float64 of shape \(2, 3\)"),
        (np.zeros((2, 3, 4), complex), "a volume must be .* got complex128"),
        (np.zeros((2, 0, 4)), r"a\.npy cannot be read \(it is empty, of size \(2, 0, 4\)\)"),
    ],
)
def test_wrong_volumes(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.zeros((2, 3), np.float32), r"must be \(x, y, z\) or \(x, y, z, channels\); got shape \(2, 3\)"),
        (np.zeros((2, 3, 4), np.complex64), "must hold real numbers; got complex64"),
    ],
)
def test_wrong_volumes_of_medicine(tmp_path: Path, volume: Any, message: str) -> None:
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("corrupt", ["raise", "skip"])
def test_a_volume_of_objects_is_never_loaded(tmp_path: Path, corrupt: str) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "created"),))

    array = np.empty((1, 1, 1), dtype=object)
    array[0, 0, 0] = Attack()
    np.save(place(tmp_path / "x" / "a.npy"), array)
    (tmp_path / "x" / "b.npy").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"holds Python objects.* never loaded"):
        read(tmp_path, corrupt=corrupt)
    assert not (tmp_path / "created").exists()


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"header": b"nothing of the kind", "body": content[: len(content) * 2 // 3], "empty": b""}[kind])


def examples(folder: Path, ending: str) -> None:
    for name in ("a", "b", "c"):
        path = place(folder / f"{name}.{ending}")
        if ending in ("wav", "flac", "mp3"):
            sound(path, np.random.default_rng(0).uniform(-1, 1, (1, 9000)).astype(np.float32))
        elif ending == "npy":
            np.save(path, noise(4, 5, 6))
        elif ending.startswith("nii"):
            nibabel.save(nibabel.Nifti1Image(noise(40, 50, 6), np.eye(4)), path)
        else:
            picture(path, noise(60, 50))


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "tif", "webp", "bmp", "gif", "wav", "flac", "mp3", "npy", "nii", "nii.gz"]
)
@pytest.mark.parametrize("kind", ["header", "body", "empty"])
def test_a_damaged_file_among_good_ones(tmp_path: Path, ending: str, kind: str) -> None:
    examples(tmp_path, ending)
    damage(tmp_path / f"b.{ending}", kind)
    with pytest.raises(ValueError, match=rf"b\.{ending} cannot be read \(\w+: "):
        read(tmp_path)[1]
    with pytest.warns(UserWarning, match=rf"^left out as damaged \(1\): .*b\.{ending} cannot be read \(\w+: "):
        samples = read(tmp_path, corrupt="skip")
    assert samples.names == [f"a.{ending}", f"c.{ending}"]
    assert samples[1].shape == (samples.channels, *samples.sizes[1])


@pytest.mark.parametrize("ending", ["png", "flac"])
def test_a_body_that_is_damaged_shows_when_it_is_read(tmp_path: Path, ending: str) -> None:
    examples(tmp_path, ending)
    damage(tmp_path / f"b.{ending}", "body")
    samples = read(tmp_path)
    assert len(samples) == 3
    assert samples[2].size > 0
    with pytest.raises(ValueError, match=rf"b\.{ending} cannot be read"):
        samples[1]


def test_all_files_damaged(tmp_path: Path) -> None:
    examples(tmp_path, "png")
    for name in "abc":
        damage(tmp_path / f"{name}.png", "body")
    with pytest.raises(ValueError, match=r"all 3 files are damaged\. .*a\.png cannot be read"):
        read(tmp_path, corrupt="skip")


def test_a_damaged_file_in_the_other_split(tmp_path: Path) -> None:
    examples(tmp_path / "train", "png")
    examples(tmp_path / "test", "png")
    damage(tmp_path / "test" / "b.png", "header")
    with pytest.raises(ValueError, match=r"test.b\.png cannot be read"):
        read(tmp_path)
    assert len(read(tmp_path, corrupt="skip")) == 3


def test_good_files_raise_no_warning_when_damaged_ones_are_skipped(tmp_path: Path) -> None:
    examples(tmp_path, "png")
    assert len(read(tmp_path, corrupt="skip")) == 3


def test_a_stream_whose_length_was_not_known(tmp_path: Path) -> None:
    signal = sound(tmp_path / "a.wav")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(only(tmp_path), signal)


def test_audio_without_a_step(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", np.zeros((1, 0), np.float32))
    with pytest.raises(ValueError, match=r"a\.wav cannot be read \(it is empty, of size \(0,\)\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "b.wav"], r"mixes kinds of signals: image a\.png, audio b\.wav"),
        (["cat/a.png", "dog/b.abc"], r"b\.abc is no signal. Understood are \.png, .*\.xyz; remove other files"),
        (["cat/a.png", "b.png"], r"is a folder with classes, and must not hold files besides: b\.png"),
        (["train/a.png", "b.png"], r"is a folder with splits, and must not hold files besides: b\.png"),
        (["train/a.png", "masks/a.png"], "holds the folder train and others that are no split: masks"),
        (["val/a.png", "valid/a.png"], "holds several folders for one split: val, valid"),
        (["cat/black/a.png"], "is a class, and must hold files, not the folder black"),
        (["cat/notes.txt"], "empty folder .*: there is no image, audio file, volume or cloud in it"),
    ],
)
def test_folders_that_are_not_understood(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        if name.endswith("png"):
            picture(tmp_path / name)
        elif name.endswith("wav"):
            sound(tmp_path / name)
        else:
            place(tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_signal_can_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.float32))
    samples = read(tmp_path)
    samples[0][:] = 1
    assert samples[0].sum() == 0


def test_samples_travel_to_other_processes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    samples = read(tmp_path)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(samples))[0], samples[0])


def test_the_warning_points_at_the_call(tmp_path: Path) -> None:
    examples(tmp_path, "png")
    damage(tmp_path / "b.png", "body")
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path / "b.png"))) as caught:
        read(tmp_path, corrupt="skip")
    assert [Path(warning.filename).name for warning in caught] == ["test_folders.py"]
