"""Failures with their photos and matches, as the page of failures shows them.

A run holds no features.  They come from the collection that made it, or are extracted again with
the same weights and settings and packed as a collection packs them: the inliers are the run's.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.revisited import OFFICIAL
from opendelg.errors import FormatError, ImageError, OpenDelgError
from opendelg.evaluation.failures import Failure, Found
from opendelg.evaluation.runs import Run
from opendelg.evidence import Box, Evidence, FailedQuery, RankedPhoto, Side
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.image import find_images, read_image
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.runtime import Device
from opendelg.search import compare
from opendelg.settings import read_settings
from opendelg.verification import VerificationSettings, regions

# Where the photo of a name may lie below the folder of images; {name} is replaced.
LAYOUTS = ("{name}", "{name}.jpg", "jpg/{name}.jpg")


@dataclass(frozen=True)
class Photos:
    """The photos that a run names."""

    run: Run
    images: Path  # folder that names are relative to

    def query(self, row: int) -> Path:
        """The photo of a query."""
        return self._path(self.run.queries[row])

    def database(self, database_id: int) -> Path:
        """The photo of a database image."""
        return self._path(self.run.names[database_id])

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise FormatError(f"image must lie below the folder of images, got {name!r} in the run")
        paths = [self.images / layout.replace("{name}", name) for layout in LAYOUTS]
        found = next((path for path in paths if path.is_file()), None)
        return found or self._elsewhere.get(name, paths[0])

    @cached_property
    def _elsewhere(self) -> dict[str, Path]:
        """Photos anywhere below the folder, as Revisited Oxford and Paris find them, by name."""
        if self.run.protocol not in OFFICIAL:
            return {}
        return {path.stem: path for path in reversed(find_images([self.images]))}


def extractor_of(
    run: Run, model: str | None = None, device: Device = "auto", threads: int | None = None
) -> Extractor:
    """The extractor that made a run.

    Args:
        run: Names the weights and settings.
        model: Where the weights are now, if not where they were.
        device: Where the network runs.
        threads: CPU threads; None: all.

    Raises:
        OpenDelgError: If the run does not say what made it, or the weights are other ones.
    """
    made_by: dict[str, Any] = dict(run.about.get("model", {}))
    if not {"name", "sha256"} <= made_by.keys() or "extraction" not in run.about:
        raise OpenDelgError("run must say what made it, got no weights and settings in it")
    config = read_settings(ExtractionConfig, run.about["extraction"], "the run")
    extractor = make_extractor(model or str(made_by["name"]), config, device, threads)
    if extractor.weights.sha256 != made_by["sha256"]:
        raise OpenDelgError(
            f"weights must be those of the run, sha256 {str(made_by['sha256'])[:12]}, got "
            f"{extractor.weights.sha256[:12]} in {str(extractor.weights.path)!r}"
        )
    return extractor


@dataclass
class PhotoFeatures:
    """Local features of photos: those of a collection, the others extracted anew.

    A context manager, as what is extracted anew lies in a temporary folder until the end.
    """

    extractor: Extractor
    given: Collection | None = None  # made by the same weights and settings
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _collections: list[Collection] = field(default_factory=list, init=False)

    def __enter__(self) -> "PhotoFeatures":
        recipe = recipe_of(self.extractor)
        if self.given is not None:
            self.given.require_recipe(recipe)
            self._collections.append(self.given)
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="delg-")))
        anew = Collection.create(folder / "anew", recipe, self.extractor.config.precision)
        self._collections.append(self._stack.enter_context(anew))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Photos that exist and that no collection holds yet, each once."""
        return [path for path in dict.fromkeys(paths) if path.is_file() and self.of(path) is None]

    def extract(self, paths: Sequence[Path], progress: Callable[[Path], None] | None) -> None:
        """Extract photos anew; those that cannot be read are left without features."""
        anew = self._collections[-1]
        plan = plan_indexing(anew, paths)
        index_photos(anew, self.extractor, plan, update=True, progress=progress)

    def of(self, path: Path) -> tuple[tuple[int, int], LocalFeatures] | None:
        """Size of a photo (width, height) px and its features; None if there are none."""
        for collection in self._collections:
            image_id = collection.find(path)
            if image_id is not None:
                (local,) = collection.local_features([image_id])
                return collection.image(image_id).size, local
        return None


def boxes(run: Run) -> list[Box | None]:
    """The part of each query that was searched for, px of its photo; None: all of it."""
    known = run.extra.get("boxes")
    if known is None:
        return [None] * len(run.queries)
    return [(float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in known]


def verification_of(run: Run, stage: str) -> VerificationSettings:
    """How pairs were verified at a stage."""
    known = run.about.get("search", {}).get("verification", {})
    if stage.startswith("official"):
        known = run.about.get("official_verification", known)
    return read_settings(VerificationSettings, known, "the run")


def photos_of(failures: Sequence[Failure], photos: Photos) -> list[Path]:
    """The photos whose features are needed to draw failures."""
    paths = []
    for failure in failures:
        pair = [found for found in (failure.wrong, failure.missed) if found is not None]
        paths += [photos.query(failure.query), *(photos.database(p.database_id) for p in pair)]
    return paths


def show_failures(
    run: Run,
    stage: str,
    measure: str,
    failures: Sequence[Failure],
    photos: Photos,
    features: PhotoFeatures,
    progress: Callable[[int], None] | None = None,
) -> list[FailedQuery]:
    """Failures as the page takes them, the wrong result and the missed positive verified again.

    Args:
        run: What they were found in.
        stage: At which they were found.
        measure: By which they were found.
        failures: Worst first.
        photos: Where the photos lie.
        features: Of the queries without box, and of the photos that are drawn.
        progress: Called with the number of each failure that is done.
    """
    settings = verification_of(run, stage)
    shown = []
    for number, failure in enumerate(failures):
        box = boxes(run)[failure.query]
        path = photos.query(failure.query)
        query = _query_features(path, box, features)
        side = Side(run.queries[failure.query], path, query.size)
        pair = [found for found in (failure.wrong, failure.missed) if found is not None]
        missed = _missed(failure)
        shown.append(
            FailedQuery(
                side,
                box,
                _summary(failure, measure),
                [_ranked(run, found, photos, features) for found in failure.results],
                None if missed is None else _ranked(run, missed, photos, features),
                [
                    (
                        _ranked(run, found, photos, features),
                        _evidence(run, found, side, query, photos, features, settings),
                    )
                    for found in pair
                ],
            )
        )
        if progress is not None:
            progress(number)
    return shown


def _missed(failure: Failure) -> Found | None:
    """The missed positive, if it is not among the first results anyway."""
    missed = failure.missed
    is_shown = missed is None or missed.database_id in {f.database_id for f in failure.results}
    return None if is_shown else missed


def _query_features(path: Path, box: Box | None, features: PhotoFeatures) -> ImageFeatures:
    nothing = np.zeros(0, np.float32)
    try:
        if box is not None:
            extractor = features.extractor
            return extractor.extract(read_image(path), box)
        found = features.of(path)
    except ImageError:
        found = None
    if found is None:
        return ImageFeatures((1, 1), nothing, LocalFeatures.empty(1))
    return ImageFeatures(found[0], nothing, found[1])


def _ranked(run: Run, found: Found, photos: Photos, features: PhotoFeatures) -> RankedPhoto:
    path = photos.database(found.database_id)
    stored = features.of(path)
    about = [] if found.rank is None else [f"similarity {found.similarity:.3f}"]
    if found.num_inliers is not None:
        about.insert(0, f"{found.num_inliers} inlier{'' if found.num_inliers == 1 else 's'}")
    side = Side(run.names[found.database_id], path, (1, 1) if stored is None else stored[0])
    return RankedPhoto(side, found.rank, found.mark, about)


def _evidence(
    run: Run,
    found: Found,
    side: Side,
    query: ImageFeatures,
    photos: Photos,
    features: PhotoFeatures,
    settings: VerificationSettings,
) -> Evidence:
    path = photos.database(found.database_id)
    stored = features.of(path)
    name, rank = run.names[found.database_id], found.rank or 0
    if stored is None or len(query.local) == 0:
        size = (1, 1) if stored is None else stored[0]
        return Evidence(side, Side(name, path, size), rank, found.similarity, 0, 0)
    size, local = stored
    (candidate,) = compare(query, [0], [found.similarity], [size], [local], None, settings)
    verification = candidate.verification
    if verification is None:
        raise AssertionError("every pair is verified")
    matches = verification.matches
    return Evidence(
        side,
        Side(name, path, size),
        rank,
        found.similarity,
        len(matches),
        verification.num_inliers,
        None,
        query.local.keypoints[matches[:, 0]],
        local.keypoints[matches[:, 1]],
        verification.inliers,
        *regions(query.local, local, verification, query.size, size),
    )


def _summary(failure: Failure, measure: str) -> str:
    """The figure of a query, and where its first right photo is."""
    figure = f"{measure} {100 * failure.value:.1f}"
    of = "" if failure.num_positives in (1, None) else f", the first of {failure.num_positives}"
    if failure.num_positives == 0:
        return f"{figure}, nothing to find"
    if failure.first_right is None:
        return f"{figure}, no right photo among the results that were kept"
    return f"{figure}, the right photo at rank {failure.first_right:,}{of}"
