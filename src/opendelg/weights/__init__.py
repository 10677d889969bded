"""Weights on disk: reading, writing, and the names they go by."""

from opendelg.weights.checkpoint import Weights, read_weights, write_weights
from opendelg.weights.published import DEFAULT_MODEL, PUBLISHED, load_weights

__all__ = [
    "DEFAULT_MODEL",
    "PUBLISHED",
    "Weights",
    "load_weights",
    "read_weights",
    "write_weights",
]
