"""From images to features: pyramid, network, selection (SPEC 3).

    extractor = Extractor(weights, profile("balanced"), choose_runtime(weights))
    features = extractor.extract(read_image(path, draft_size=extractor.config.draft_size))
    query = extractor.extract(image, box=(x1, y1, x2, y2))
    for path, features in extract_stream(paths, extractor): ...  # ImageFeatures or ImageError

Every pyramid scale takes one forward pass, shared by the global and the local features.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from opendelg.collection.packing import PRECISIONS, Precision
from opendelg.errors import ImageError, WeightsError
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.geometry import receptive_box_centres
from opendelg.image import (
    DecodedImage,
    crop_factor,
    crop_image,
    limited_size,
    read_image,
    resize_bilinear,
    resize_to_limit,
    scale_size,
)
from opendelg.runtime import RawFeatures, Runtime
from opendelg.weights import Weights

MIN_IMAGE_SIDE = 10  # px after resizing; SPEC 3.1
# Of one level of the pyramid; the published settings stay below 4.2 million.  A ResNet-50 takes
# 315 bytes for each on ONNX Runtime: 10 GB.
MAX_LEVEL_PIXELS = 2**25
GPU_BATCH = 16  # images of equal size

Box = tuple[float, float, float, float]
Source = TypeVar("Source")


def parse_box(text: str) -> Box:
    """The box in a text like ``120,80,620,540``.

    Raises:
        ValueError: If it is not four finite numbers.
    """
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
        if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
            raise ValueError("numbers must be finite")
    except ValueError as error:
        raise ValueError(f"box must be four numbers x1,y1,x2,y2, got {text!r}") from error
    return x1, y1, x2, y2


@dataclass(frozen=True)
class ExtractionConfig:
    """How features are extracted; the defaults are the paper's (SPEC 3.1, 3.2, 3.4)."""

    max_size: int = 1024  # px, longer side after shrinking; -1: no limit
    min_size: int = -1  # px, longer side that smaller images are enlarged to; -1: never
    scales: tuple[float, ...] = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
    global_scales: tuple[float, ...] = (0.70710677, 1.0, 1.4142135)
    max_keypoints: int = 1000  # 0: no local features
    score_threshold: float | None = None  # lowest attention of a keypoint; None: the weights' own
    precision: Precision = "float16"  # of stored local descriptors
    draft: bool = False  # decode large JPEGs at 1/2, 1/4 or 1/8: faster, other pixel values

    def __post_init__(self) -> None:
        for name in ("max_size", "min_size"):
            value = getattr(self, name)
            if value != -1 and value < MIN_IMAGE_SIDE:
                raise ValueError(f"{name} must be -1 or at least {MIN_IMAGE_SIDE}, got {value}")
        if -1 < self.max_size < self.min_size:
            raise ValueError(
                f"min_size must be at most max_size {self.max_size}, got {self.min_size}"
            )
        for name in ("scales", "global_scales"):
            scales = getattr(self, name)
            if not scales or len(set(scales)) < len(scales) or not all(0 < s <= 8 for s in scales):
                raise ValueError(f"{name} must be distinct numbers in (0, 8], got {scales}")
        if self.max_keypoints < 0:
            raise ValueError(f"max_keypoints must be at least 0, got {self.max_keypoints}")
        if self.score_threshold is not None and not 0 <= self.score_threshold < math.inf:
            raise ValueError(f"score_threshold must be in [0, inf), got {self.score_threshold}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")

    @property
    def draft_size(self) -> int | None:
        """What `read_image` takes as ``draft_size``."""
        return self.max_size if self.draft and self.max_size > 0 else None


# Costs are per 4:3 photo on two cores with a ResNet-18; benchmarks/inference.py measures them.
# Below the paper's settings, large photos start from more pixels and skip the enlarged scales:
# an enlarged scale costs as much as real pixels and holds nothing new.  Small photos are enlarged,
# so that they too give a thousand cells to choose from.  The starter's global descriptors of photos
# left out of its training: mAP 0.51 from scales 0.35 to 0.71, 0.54 from 0.5 to 1.
PROFILES = {
    "paper": ExtractionConfig(),
    "accurate": ExtractionConfig(
        max_size=1024,
        min_size=640,
        scales=(0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135),
        global_scales=(0.5, 0.70710677, 1.0),
    ),
    "balanced": ExtractionConfig(
        max_size=768,
        min_size=512,
        scales=(0.25, 0.35355338, 0.5, 0.70710677, 1.0),
        global_scales=(0.5, 0.70710677, 1.0),
        precision="int8",
        draft=True,
    ),
    "fast": ExtractionConfig(
        max_size=480,
        min_size=384,
        scales=(0.35355338, 0.5, 0.70710677, 1.0),
        global_scales=(0.5, 0.70710677, 1.0),
        max_keypoints=400,
        precision="int8",
        draft=True,
    ),
}


def profile(name: str) -> ExtractionConfig:
    """The extraction settings that go by a name.

    Raises:
        ValueError: If no profile has this name.
    """
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {name!r}")
    return PROFILES[name]


def profile_name(config: ExtractionConfig) -> str:
    """The name of these settings, "custom" if they have none."""
    names = [name for name, known in PROFILES.items() if known == config]
    return names[0] if names else "custom"


@dataclass(frozen=True)
class PreparedImage:
    """An image or crop at the size that the pyramid starts from."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    size: tuple[int, int]  # (width, height) px of the whole original image
    offset: tuple[int, int]  # (x, y) px of the crop's first pixel in the original
    factors: tuple[float, float]  # (x, y) sides of `pixels` divided by those of the original


class Extractor:
    """Extracts features with one network and one configuration; not for several threads at once.

    Only `prepare` may run beside the other methods.
    """

    def __init__(self, weights: Weights, config: ExtractionConfig, runtime: Runtime) -> None:
        """Keep the parts; ``runtime`` must hold the network of ``weights``."""
        self.weights = weights
        self.config = config
        self.runtime = runtime
        self.score_threshold = (
            weights.score_threshold if config.score_threshold is None else config.score_threshold
        )

    @property
    def batch_size(self) -> int:
        """How many images to take at a time: on a CPU more than one gains nothing."""
        return GPU_BATCH if self.runtime.device == "cuda" else 1

    def extract(
        self, image: DecodedImage, box: Box | None = None, want_local: bool = True
    ) -> ImageFeatures:
        """Features of an image, or of the part inside ``box``.

        Args:
            image: The whole image.
            box: (x1, y1, x2, y2) px of the original, x2 and y2 excluded; it is resized as if the
                whole image were brought to the limit (SPEC 3.1).
            want_local: Without, only the scales of the global descriptor are computed.

        Returns:
            Features with keypoints in pixels of the whole original, also for a box.

        Raises:
            ImageError: If the image is too small after resizing, or no pixel is in the box.
            WeightsError: If descriptors are not finite.
        """
        return self.extract_prepared([self.prepare(image, box)], want_local)[0]

    def extract_batch(
        self, images: Sequence[DecodedImage], want_local: bool = True
    ) -> list[ImageFeatures]:
        """Features of images in their order; those of equal size share their passes.

        Raises:
            ImageError: If one of the images is too small after resizing.
        """
        return self.extract_prepared([self.prepare(image) for image in images], want_local)

    def prepare(self, image: DecodedImage, box: Box | None = None) -> PreparedImage:
        """Crop and resize: what needs no network and can run in another thread.

        Raises:
            ImageError: If the image is too small after resizing, or no pixel is in the box.
        """
        config, part, factor, offset = self.config, image, 1.0, (0, 0)
        if box is not None:
            part = crop_image(image, box)
            factor = crop_factor(part.size, image.size)
            offset = (max(0, round(float(box[0]))), max(0, round(float(box[1]))))
        limits = config.max_size, config.min_size, factor
        self._require_memory(limited_size(part.size, *limits))
        pixels = resize_to_limit(part.pixels, part.size, *limits)
        height, width = pixels.shape[:2]
        if min(width, height) < MIN_IMAGE_SIDE or not self._levels(pixels, config.global_scales):
            raise ImageError(
                f"image must have sides of at least {MIN_IMAGE_SIDE} px after resizing, "
                f"got {width} x {height} px"
            )
        factors = (width / part.size[0], height / part.size[1])
        return PreparedImage(pixels, image.size, offset, factors)

    def _require_memory(self, size: tuple[int, int]) -> None:
        """Refuse a pyramid that would fill the memory, before any of it is made."""
        scale = max(self.config.scales + self.config.global_scales)
        width, height = scale_size(size, scale)
        if width * height > MAX_LEVEL_PIXELS:
            raise ImageError(
                f"pyramid must have at most {MAX_LEVEL_PIXELS} px in a level, got {width} x "
                f"{height} at scale {scale}; limit the size of images (max_image_size in a "
                "settings file)"
            )

    def extract_prepared(
        self, images: Sequence[PreparedImage], want_local: bool = True
    ) -> list[ImageFeatures]:
        """Features of prepared images in their order."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, image in enumerate(images):
            groups[image.pixels.shape].append(row)
        features: dict[int, ImageFeatures] = {}
        for rows in groups.values():
            group = [images[row] for row in rows]
            features.update(zip(rows, self._extract_group(group, want_local), strict=True))
        return [features[row] for row in range(len(images))]

    def _extract_group(
        self, images: Sequence[PreparedImage], want_local: bool
    ) -> list[ImageFeatures]:
        """Features of images whose prepared pixels have one shape."""
        config = self.config
        local_scales = config.scales if want_local and config.max_keypoints else ()
        # In the order of `scales`, because that decides between equal scores.
        scales = [*local_scales, *(s for s in config.global_scales if s not in local_scales)]
        levels: dict[float, RawFeatures] = {}
        for scale, size in self._levels(images[0].pixels, scales):
            rule = self.runtime.architecture.resize_rule
            inputs = np.stack([resize_bilinear(image.pixels, size, rule) for image in images])
            levels[scale] = self.runtime.run(
                inputs, scale in config.global_scales, scale in local_scales
            )
        global_levels = [levels[scale] for scale in config.global_scales if scale in levels]
        return [
            ImageFeatures(
                image.size,
                _sum_descriptors(global_levels, row),
                self._select(levels, row, image),
            )
            for row, image in enumerate(images)
        ]

    def _levels(
        self, pixels: np.ndarray, scales: Sequence[float]
    ) -> list[tuple[float, tuple[int, int]]]:
        """(scale, (width, height)) of the levels that are large enough for the network."""
        height, width = pixels.shape[:2]
        sizes = [(scale, scale_size((width, height), scale)) for scale in scales]
        min_side = self.runtime.architecture.min_side
        return [(scale, size) for scale, size in sizes if min(size) >= min_side]

    def _select(
        self, levels: Mapping[float, RawFeatures], row: int, image: PreparedImage
    ) -> LocalFeatures:
        """The best cells of all levels (SPEC 3.4); of equal scores the earlier cell counts."""
        stride = self.runtime.architecture.local_stride
        keypoints, descriptors, scores, scales = [], [], [], []
        for scale, raw in levels.items():
            if raw.attention is None or raw.local_descriptors is None:
                continue
            attention = raw.attention[row].ravel()
            kept = np.flatnonzero(attention >= self.score_threshold)
            height, width = raw.attention[row].shape
            centres = receptive_box_centres(height, width, stride, scale)
            keypoints.append(centres[kept])
            descriptors.append(raw.local_descriptors[row].reshape(len(attention), -1)[kept])
            scores.append(attention[kept])
            scales.append(np.full(len(kept), scale, np.float32))
        if not keypoints:
            return LocalFeatures.empty(self.runtime.architecture.num_local_dimensions)
        order = np.argsort(-np.concatenate(scores), kind="stable")[: self.config.max_keypoints]
        resized = np.concatenate(keypoints)[order]
        return LocalFeatures(
            keypoints=(resized / image.factors + image.offset).astype(np.float32),
            descriptors=_unit_rows(np.concatenate(descriptors)[order]),
            scores=np.concatenate(scores)[order],
            scales=np.concatenate(scales)[order],
        )


def extract_stream(
    sources: Iterable[Source],
    extractor: Extractor,
    load: Callable[[Source], DecodedImage] | None = None,
    decode_threads: int = 1,
    batch_size: int = 1,
    want_local: bool = True,
) -> Generator[tuple[Source, ImageFeatures | ImageError], None, None]:
    """Extract many images: reading and decoding run beside the network.

    Args:
        sources: Paths, or whatever ``load`` takes; read lazily.
        extractor: Used by nobody else meanwhile.
        load: Called in several threads; None: `read_image` of a path with the profile's draft.
            An ImageError it raises becomes the source's result.
        decode_threads: Threads that load and resize.
        batch_size: Images that the network takes at a time; more than 1 pays on GPUs.
        want_local: As of `Extractor.extract`.

    Yields:
        Each source in order with its features, or with the ImageError that it failed with.  At
        most ``decode_threads + 3 batch_size`` images wait, at the size they were resized to.
    """
    if decode_threads < 1 or batch_size < 1:
        raise ValueError(
            f"decode_threads and batch_size must be at least 1, got {decode_threads}, {batch_size}"
        )
    config = extractor.config

    def prepare(source: Source) -> PreparedImage | ImageError:
        try:
            if load is not None:
                return extractor.prepare(load(source))
            path = Path(source)  # type: ignore[arg-type]
            return extractor.prepare(read_image(path, draft_size=config.draft_size))
        except ImageError as error:
            return error

    def compute(
        batch: list[Future[PreparedImage | ImageError]],
    ) -> list[ImageFeatures | ImageError]:
        results = [future.result() for future in batch]
        images = [result for result in results if isinstance(result, PreparedImage)]
        features = iter(extractor.extract_prepared(images, want_local))
        return [r if isinstance(r, ImageError) else next(features) for r in results]

    remaining = iter(sources)
    running: deque[tuple[list[Source], Future[list[ImageFeatures | ImageError]]]] = deque()
    decoders = ThreadPoolExecutor(decode_threads, "decode")
    network = ThreadPoolExecutor(1, "network")
    max_running = 1 + -(-(decode_threads + batch_size) // batch_size)
    try:
        while True:
            while len(running) < max_running and (batch := list(islice(remaining, batch_size))):
                decoding = [decoders.submit(prepare, source) for source in batch]
                running.append((batch, network.submit(compute, decoding)))
            if not running:
                return
            batch, computing = running.popleft()
            yield from zip(batch, computing.result(), strict=True)
    finally:
        # The network first: what it waits for must not be cancelled under it.
        network.shutdown(cancel_futures=True)
        decoders.shutdown(cancel_futures=True)


def _sum_descriptors(levels: Sequence[RawFeatures], row: int) -> np.ndarray:
    """The global descriptor: unit descriptors of the scales, summed, of unit length again."""
    raw = [raw.global_descriptors[row] for raw in levels if raw.global_descriptors is not None]
    descriptor: np.ndarray = _unit_rows(_unit_rows(np.stack(raw)).sum(axis=0)[None])[0]
    return descriptor


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays."""
    if not np.isfinite(rows).all():  # one NaN would turn every ranking it is in into nonsense
        raise WeightsError(
            "descriptors must be finite, got others; the weights are damaged, or the device "
            "computes them wrongly"
        )
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    unit: np.ndarray = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
