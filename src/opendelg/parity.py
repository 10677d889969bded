"""Does a network of ours give what TensorFlow gave?

    expected = read_expected(Path("expected_0.npz"))
    differences = compare(weights, [OnnxRuntime(weights)], expected, read_image(photo))

An expected file holds what a released model's graph returned for one photo (SPEC 6.3), with what it
was asked for.  Compared are numbers and order: the same keypoints, best first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.errors import FormatError, ImageError
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.feature_files.npz import FOREIGN, open_npz
from opendelg.features import LocalFeatures
from opendelg.image import DecodedImage, scale_size
from opendelg.runtime import RawFeatures, Runtime
from opendelg.weights import Weights

# Relative for global descriptors and scores, absolute for unit local descriptors.
TOLERANCE = 1e-4
# px.  Cells lie more than 10 px apart: what is nearer is the same cell, rounded differently.
KEYPOINT_TOLERANCE = 0.01

_ARRAYS = {  # key -> number of dimensions
    "abs_thres": 0,
    "max_feature_num": 0,
    "image_scales": 1,
    "global_scales_ind": 1,
    "boxes": 2,
    "features": 2,
    "scales": 1,
    "scores": 2,
    "global_descriptors": 2,
}


@dataclass(frozen=True)
class Expected:
    """What TensorFlow gave for one photo, in our words."""

    image: str  # name of the photo
    config: ExtractionConfig
    global_descriptors: np.ndarray  # (G, D) float32, not normalised, a row per global scale
    local: LocalFeatures


@dataclass(frozen=True)
class Differences:
    """Largest differences between two sets of features; infinite where they cannot be paired."""

    global_descriptor: float  # relative to the largest value of the descriptor
    keypoints: float  # px
    scores: float  # relative
    descriptors: float  # between unit vectors, per value

    @property
    def is_ok(self) -> bool:
        """Whether all are within the tolerances."""
        values = (self.global_descriptor, self.scores, self.descriptors)
        return max(values) <= TOLERANCE and self.keypoints <= KEYPOINT_TOLERANCE

    def worse(self, other: "Differences") -> "Differences":
        """The larger of each difference; what is no number differs infinitely."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Differences(*(max(math.inf if math.isnan(v) else v for v in pair) for pair in pairs))


NO_DIFFERENCES = Differences(0.0, 0.0, 0.0, 0.0)


def read_expected(path: Path) -> Expected:
    """Read an expected file.

    Raises:
        FormatError: If it is no such file.
    """
    try:
        with open_npz(path) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        absent = sorted({*_ARRAYS, "image"} - set(arrays))
        if absent:
            raise FormatError(f"expected file must have {', '.join(absent)}, got {str(path)!r}")
        for name, dimensions in _ARRAYS.items():
            if arrays[name].ndim != dimensions or arrays[name].dtype.kind not in "fiu":
                raise ValueError(f"{name} of shape {arrays[name].shape}")
        if arrays["image"].ndim or arrays["image"].dtype.kind != "U":
            raise ValueError("image that is no name")
        return _in_our_words(arrays)
    except (*FOREIGN, IndexError) as error:
        raise FormatError(
            f"expected file must be an .npz of a saved model's outputs, got {str(path)!r} ({error})"
        ) from error


def _in_our_words(arrays: Mapping[str, np.ndarray]) -> Expected:
    scales = [float(scale) for scale in arrays["image_scales"]]
    config = ExtractionConfig(
        max_size=-1,
        scales=tuple(scales),
        global_scales=tuple(scales[place] for place in arrays["global_scales_ind"].tolist()),
        max_keypoints=int(arrays["max_feature_num"]),
        score_threshold=float(arrays["abs_thres"]),
    )
    boxes = np.asarray(arrays["boxes"], np.float64)
    features = np.asarray(arrays["features"], np.float32)
    rows = len(boxes)
    if {len(features), len(arrays["scales"]), len(arrays["scores"])} != {rows}:
        raise ValueError(f"different numbers of features beside {rows} boxes")
    if len(arrays["global_descriptors"]) != len(config.global_scales):
        raise ValueError("other than one global descriptor per global scale")
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    local = LocalFeatures(
        # Boxes are (top, left, bottom, right); the cell is at their centre.
        keypoints=((boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2).astype(np.float32),
        descriptors=(features / np.maximum(lengths, 1e-12)).astype(np.float32),
        scores=np.asarray(arrays["scores"], np.float32)[:, 0],
        # TensorFlow's scale is how much larger than at scale 1 the feature is.
        scales=(1 / np.asarray(arrays["scales"], np.float64)).astype(np.float32),
    )
    return Expected(str(arrays["image"]), config, arrays["global_descriptors"], local)


def find_photo(expected: Expected, folder: Path) -> Path:
    """The photo that an expected file is about.

    Raises:
        ImageError: If it is not in the folder.
    """
    path = folder / expected.image
    if not path.is_file():
        raise ImageError(f"photo must be in the folder, got no {str(path)!r}; --images names it")
    return path


def compare(
    weights: Weights, runtimes: Sequence[Runtime], expected: Expected, image: DecodedImage
) -> dict[float, Differences]:
    """Largest differences by pyramid scale, of the worst runtime.

    Args:
        weights: The network of ``runtimes``.
        runtimes: Where it runs.
        expected: What TensorFlow gave.
        image: The photo.
    """
    worst = dict.fromkeys(_scales(expected.config), NO_DIFFERENCES)
    for runtime in runtimes:
        for scale, differences in _compare(weights, runtime, expected, image).items():
            worst[scale] = worst[scale].worse(differences)
    return worst


def _scales(config: ExtractionConfig) -> list[float]:
    return list(dict.fromkeys([*config.scales, *config.global_scales]))


def _compare(
    weights: Weights, runtime: Runtime, expected: Expected, image: DecodedImage
) -> dict[float, Differences]:
    recorder = _Recorder(runtime)
    # Every cell near the threshold and beyond the last keypoint, so that ties there can be paired.
    threshold = (expected.config.score_threshold or 0.0) * (1 - TOLERANCE)
    wide = replace(expected.config, max_keypoints=2**31, score_threshold=max(0.0, threshold))
    features = Extractor(weights, wide, recorder).extract(image)
    by_scale = dict.fromkeys(_scales(wide), NO_DIFFERENCES)

    def add(scale: float, *differences: float) -> None:
        by_scale[scale] = by_scale[scale].worse(Differences(*differences))

    for scale, given in zip(wide.global_scales, expected.global_descriptors, strict=True):
        found = recorder.global_descriptors.get(scale_size(image.size, scale))
        add(scale, _relative(found, given), 0.0, 0.0, 0.0)
    local = _compare_local(features.local, expected.local)
    is_of = np.isclose(expected.local.scales[:, None], wide.scales, rtol=TOLERANCE)
    for column, scale in enumerate(wide.scales):
        add(scale, 0.0, *local[is_of[:, column]].max(axis=0, initial=0.0).tolist())
    if _differs_in_number(features.local, expected) or not is_of.any(axis=1).all():
        add(wide.scales[0], 0.0, np.inf, 0.0, 0.0)
    return by_scale


class _Recorder:
    """A runtime that keeps the global descriptors it gives, by (width, height) of the level."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = runtime.device
        self.architecture = runtime.architecture
        self.global_descriptors: dict[tuple[int, int], np.ndarray] = {}

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        raw = self.runtime.run(images, want_global, want_local)
        if raw.global_descriptors is not None:
            self.global_descriptors[images.shape[2], images.shape[1]] = raw.global_descriptors[0]
        return raw


def _relative(found: np.ndarray | None, given: np.ndarray) -> float:
    if found is None or found.shape != given.shape or not np.isfinite(given).all():
        return float("inf")
    return float(np.abs(found - given).max() / max(np.abs(given).max(), 1e-12))


def _compare_local(found: LocalFeatures, given: LocalFeatures) -> np.ndarray:
    """(N, 3) differences of keypoints, scores and descriptors of the given features.

    A feature is paired with ours of the same rank; where scores are equal but for rounding, with
    ours of the same cell among them.
    """
    differences = np.full((len(given), 3), np.inf)
    if found.descriptors.shape[1] != given.descriptors.shape[1]:
        return differences
    for rank, score in enumerate(given.scores):
        tied = np.abs(found.scores - score) <= TOLERANCE * abs(score)
        tied[rank : rank + 1] = True
        pairs = np.flatnonzero(tied)
        if len(pairs) == 0:
            continue
        distances = np.abs(found.keypoints[pairs] - given.keypoints[rank]).max(axis=1)
        same_scale = np.isclose(found.scales[pairs], given.scales[rank], rtol=TOLERANCE)
        distances = np.where(same_scale, distances, np.inf)
        pair = pairs[np.argmin(distances)]
        differences[rank] = (
            distances.min(),
            abs(found.scores[pair] - score) / max(abs(score), 1e-12),
            np.abs(found.descriptors[pair] - given.descriptors[rank]).max(),
        )
    return differences


def _differs_in_number(found: LocalFeatures, expected: Expected) -> bool:
    """Whether we find more or fewer features, those with the threshold's very score aside."""
    limit = expected.config.max_keypoints
    above = found.scores >= (expected.config.score_threshold or 0.0) * (1 + TOLERANCE)
    return not min(int(above.sum()), limit) <= len(expected.local) <= min(len(found), limit)


def report(differences: Mapping[float, Differences]) -> dict[str, Any]:
    """The differences of one photo as plain values: the largest, and those of each scale."""
    largest = NO_DIFFERENCES
    for of_scale in differences.values():
        largest = largest.worse(of_scale)
    return {
        **_plain(largest),
        "ok": largest.is_ok,
        "scales": [{"scale": scale, **_plain(of)} for scale, of in differences.items()],
    }


def _plain(differences: Differences) -> dict[str, float]:
    return {
        "global": differences.global_descriptor,
        "keypoints": differences.keypoints,
        "scores": differences.scores,
        "descriptors": differences.descriptors,
    }
