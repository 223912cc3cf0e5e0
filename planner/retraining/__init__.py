"""Merged models trained again: an oracle that says whether classifiers keep their accuracy, from ONNX to ONNX."""

try:
    import autograd  # noqa: F401
except ImportError:
    from planner.model import InputError

    raise InputError("retraining needs autograd, which is not installed: pip install 'poolpipe[retrain]'") from None

from planner.retraining.operators import group_starts
from planner.retraining.oracle import Retraining, groups_of, write_models
from planner.retraining.training import Effort, Retrained, Task, accuracy, retrain, train, weights_of

__all__ = [
    "Effort",
    "Retrained",
    "Retraining",
    "Task",
    "accuracy",
    "group_starts",
    "groups_of",
    "retrain",
    "train",
    "weights_of",
    "write_models",
]
