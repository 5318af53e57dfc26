"""Training: the loop, what it is told, its checkpoints, and networks that know their task."""

from omniconv._errors import CheckpointError as CheckpointError
from omniconv._errors import Interrupted as Interrupted
from omniconv._errors import NonFiniteError as NonFiniteError
from omniconv._errors import SampleError as SampleError
from omniconv._errors import StepMemoryError as StepMemoryError
from omniconv.training.architecture import Architecture as Architecture
from omniconv.training.architecture import choose as choose
from omniconv.training.augmentation import CloudAugmentation as CloudAugmentation
from omniconv.training.checkpoints import Checkpoint as Checkpoint
from omniconv.training.checkpoints import read_checkpoint as read_checkpoint
from omniconv.training.checkpoints import read_latest as read_latest
from omniconv.training.checkpoints import write_checkpoint as write_checkpoint
from omniconv.training.evaluation import accuracy as accuracy
from omniconv.training.evaluation import outputs_of as outputs_of
from omniconv.training.fitting import fit as fit
from omniconv.training.interrupts import EXIT_CODE as EXIT_CODE
from omniconv.training.language import Agreement as Agreement
from omniconv.training.language import Attempt as Attempt
from omniconv.training.language import Language as Language
from omniconv.training.language import NextToken as NextToken
from omniconv.training.language import compare as compare
from omniconv.training.language import distill_language as distill_language
from omniconv.training.language import train_language as train_language
from omniconv.training.logs import read_log as read_log
from omniconv.training.loop import Run as Run
from omniconv.training.loop import train as train
from omniconv.training.optimizer import build_optimizer as build_optimizer
from omniconv.training.optimizer import warmup_cosine as warmup_cosine
from omniconv.training.predictor import Predictor as Predictor
from omniconv.training.recipe import Recipe as Recipe
from omniconv.training.tasks import Classification as Classification
from omniconv.training.tasks import Regression as Regression
from omniconv.training.tasks import Task as Task
from omniconv.training.tasks import infer_task as infer_task

__all__ = [
    "EXIT_CODE",
    "Agreement",
    "Architecture",
    "Attempt",
    "Checkpoint",
    "CheckpointError",
    "Classification",
    "CloudAugmentation",
    "Interrupted",
    "Language",
    "NextToken",
    "NonFiniteError",
    "Predictor",
    "Recipe",
    "Regression",
    "Run",
    "SampleError",
    "StepMemoryError",
    "Task",
    "accuracy",
    "build_optimizer",
    "choose",
    "compare",
    "distill_language",
    "fit",
    "infer_task",
    "outputs_of",
    "read_checkpoint",
    "read_latest",
    "read_log",
    "train",
    "train_language",
    "warmup_cosine",
    "write_checkpoint",
]
