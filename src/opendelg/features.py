"""What is extracted from one image, and the coordinate convention, stated once.

Keypoints are ``(x, y)`` pixels in the original, upright image (after the EXIF orientation is
applied, before any resizing); the centre of the first pixel is ``(0, 0)``.  Sizes are
``(width, height)``.  Descriptors are rows of unit length.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LocalFeatures:
    """Attentive local features of one image, best attention first; N may be 0."""

    keypoints: np.ndarray  # (N, 2) float32, (x, y) px of the original, upright image
    descriptors: np.ndarray  # (N, D) float32, rows of unit length
    scores: np.ndarray  # (N,) float32, attention after softplus
    scales: np.ndarray  # (N,) float32, pyramid scale the keypoint came from

    def __len__(self) -> int:
        return len(self.keypoints)

    @classmethod
    def empty(cls, num_dimensions: int) -> "LocalFeatures":
        """No features of ``num_dimensions`` columns: legal everywhere."""
        return cls(
            keypoints=np.zeros((0, 2), np.float32),
            descriptors=np.zeros((0, num_dimensions), np.float32),
            scores=np.zeros(0, np.float32),
            scales=np.zeros(0, np.float32),
        )

    def take(self, rows: np.ndarray) -> "LocalFeatures":
        """The features at ``rows``, a slice, (K,) positions or (N,) bool mask, in that order."""
        return LocalFeatures(
            self.keypoints[rows], self.descriptors[rows], self.scores[rows], self.scales[rows]
        )


@dataclass(frozen=True)
class ImageFeatures:
    """Everything extracted from one image."""

    size: tuple[int, int]  # (width, height) px of the original, upright image
    global_descriptor: np.ndarray  # (D,) float32, unit length
    local: LocalFeatures
