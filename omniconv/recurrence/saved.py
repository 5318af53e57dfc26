"""Streams as folders: the network, and the recurrences that were made of its kernels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from omniconv.models._pretrained import as_json, check_sum, read_tensors, write_together
from omniconv.nn import Conv
from omniconv.nn.causal import Part, Window
from omniconv.recurrence.distiller import StreamedLayer
from omniconv.recurrence.modal import Modal
from omniconv.recurrence.recurrence import Recurrence

RECURRENCES, STREAM = "stream.safetensors", "stream.json"
FORMAT = 1


@dataclass
class Stored:
    """What stands for the kernels of a network in a stream that was saved."""

    spacing: float
    lowpass: bool
    tensors: Mapping[str, Tensor]
    modal: dict[str, Modal] = field(default_factory=dict)
    """The recurrences, by the name of the convolution."""

    def __call__(self, name: str, conv: Conv) -> Part:
        taps = conv.taps(self.spacing, self.lowpass).double()
        if f"{name}.poles" not in self.tensors:
            return Window(taps)
        parts = (self.tensors[f"{name}.{part}"].to(taps.device) for part in ("poles", "residues", "direct", "l1"))
        poles, residues, direct, l1 = parts
        recurrence = Recurrence(torch.view_as_complex(poles), torch.view_as_complex(residues), direct)
        self.modal[name] = Modal(recurrence, taps, l1)
        return self.modal[name]


def write_stream(
    folder: Path, modal: Mapping[str, Modal], layers: Sequence[StreamedLayer], about: Mapping[str, Any]
) -> None:
    """Write the recurrences of the convolutions, by their names, and what they became; `about`: JSON values."""
    tensors = dict[str, Tensor]()
    for name, part in modal.items():
        recurrence = part.recurrence
        complex_parts = {"poles": recurrence.poles, "residues": recurrence.residues}
        tensors |= {f"{name}.{key}": torch.view_as_real(value) for key, value in complex_parts.items()}
        tensors |= {f"{name}.direct": recurrence.direct, f"{name}.l1": part.l1}
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    described = {**about, "format": FORMAT, "layers": [dataclasses.asdict(layer) for layer in layers]}
    described["sha256"] = hashlib.sha256(data).hexdigest()
    write_together(folder, {RECURRENCES: data, STREAM: as_json(described)})


def read_stream(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_stream` wrote; raises `FileNotFoundError` or `ValueError` that names the file."""
    path = folder / STREAM
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: the folder holds no stream. Save one: stream(model).save_pretrained."
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ValueError(f"{path} is not the description of a stream in format {FORMAT}.")
    tensors = read_tensors(folder / RECURRENCES)
    check_sum(folder / RECURRENCES, described.get("sha256"))
    return described, tensors
