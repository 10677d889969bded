"""Weights on disk: reading, writing, and the names they go by."""

from opendelg.weights.checkpoint import Weights, read_weights, write_weights
from opendelg.weights.published import (
    DEFAULT_MODEL,
    PUBLISHED,
    cache_folder,
    load_weights,
    published_as,
    published_name,
)

__all__ = [
    "DEFAULT_MODEL",
    "PUBLISHED",
    "Weights",
    "cache_folder",
    "load_weights",
    "published_as",
    "published_name",
    "read_weights",
    "write_weights",
]
