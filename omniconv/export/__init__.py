"""Networks made ready for use: the same function, in a form that is simpler or runs elsewhere."""

from omniconv.export.bake import bake as bake
from omniconv.export.fold import fold as fold
from omniconv.export.hugging_face import to_hugging_face as to_hugging_face
from omniconv.export.onnx import to_onnx as to_onnx

__all__ = ["bake", "fold", "to_hugging_face", "to_onnx"]
