"""Training: the optimiser that reads parameter tags, and the loop."""

from omniconv.training.loop import accuracy as accuracy
from omniconv.training.loop import train_classifier as train_classifier
from omniconv.training.optimizer import build_optimizer as build_optimizer
from omniconv.training.optimizer import warmup_cosine as warmup_cosine

__all__ = ["accuracy", "build_optimizer", "train_classifier", "warmup_cosine"]
