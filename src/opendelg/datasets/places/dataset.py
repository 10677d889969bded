"""A place recognition dataset: where images were taken, and which of them a query should find.

A query finds its place if one of the first k database images was taken near it: within 25 m of
its position, or within some frames where a train or car drove the same line twice.  The radius
itself is included, as in the code of NetVLAD (``ds <= posDistSqThr``, Relja/netvlad, MIT,
datasets/closePosition.m) and of MSLS (scikit-learn's ``radius_neighbors``).

Whether queries without any positive count is a property of the dataset.  NetVLAD's and
Patch-NetVLAD's code divide by the number of all queries, so that those are failures
(Relja/netvlad, recallAtN.m; QVPR/Patch-NetVLAD, MIT, feature_match.py); MSLS takes them out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from opendelg.datasets.places.near import (
    MAX_COORDINATE,
    MIN_RADIUS,
    heading_differences,
    near,
)
from opendelg.errors import FormatError, OpenDelgError

RADIUS_M = 25.0  # m; NetVLAD, MSLS, and all that compare with them
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class NearRule:
    """What makes a database image a positive of a query."""

    radius: float = RADIUS_M  # greatest distance that is still near
    unit: Literal["m", "frames"] = "m"
    max_heading_deg: float | None = None  # greatest difference of the headings; None: any

    def __post_init__(self) -> None:
        if not MIN_RADIUS <= self.radius <= MAX_COORDINATE:
            raise OpenDelgError(
                f"radius must be between {MIN_RADIUS:g} and {MAX_COORDINATE:g}, got {self.radius}"
            )
        if self.max_heading_deg is not None and not 0 <= self.max_heading_deg <= 180:
            raise OpenDelgError(f"heading must be between 0 and 180, got {self.max_heading_deg}")

    def __str__(self) -> str:
        turned = "" if self.max_heading_deg is None else f" and {self.max_heading_deg:g} degrees"
        return f"{self.radius:g} {self.unit}{turned}"


@dataclass(frozen=True)
class PlaceImages:
    """Images of one role.  Ids are positions in ``names``."""

    names: tuple[str, ...]  # below the dataset's folder
    positions: np.ndarray  # (N, 2) float64 (east, north) in m, or (frame, 0)
    regions: np.ndarray  # (N,) int64; images of different zones or cities are never near
    headings: np.ndarray  # (N,) float64 degrees from north, clockwise; NaN where not known
    keys: tuple[str, ...] = ()  # what a submission calls them; () if there is no such name

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, kept: np.ndarray) -> "PlaceImages":
        """The images where the mask ``kept`` (N,) is true."""
        rows = np.flatnonzero(kept)
        return PlaceImages(
            tuple(self.names[row] for row in rows),
            self.positions[rows],
            self.regions[rows],
            self.headings[rows],
            tuple(self.keys[row] for row in rows) if self.keys else (),
        )


@dataclass(frozen=True)
class PlacesDataset:
    """Database and queries of one protocol."""

    layout: str  # which reader made it
    folder: Path  # that names are relative to
    database: PlaceImages
    queries: PlaceImages
    rule: NearRule
    positives: tuple[np.ndarray, ...] | None  # per query (P,) int64, ascending; None: not known
    # (N,) int64: only the first result of each panorama counts; None: every image does
    panoramas: np.ndarray | None = None
    num_removed: int = 0  # queries taken out because they have no positive
    notes: tuple[str, ...] = ()  # what a reader of the figures must know
    name: str = ""  # of the benchmark, if it is one that is known

    @property
    def num_without_positives(self) -> int:
        """Queries that can find nothing and count as failures."""
        return sum(len(found) == 0 for found in self.positives or ())

    def database_path(self, database_id: int) -> Path:
        """The file of a database image."""
        return self.folder / self.database.names[database_id]

    def query_path(self, query_id: int) -> Path:
        """The file of a query."""
        return self.folder / self.queries.names[query_id]


def with_positives(dataset: PlacesDataset, removes_queries: bool = False) -> PlacesDataset:
    """The dataset with the positives that its rule gives.

    Args:
        dataset: Its ``positives`` are replaced.
        removes_queries: Take queries without a positive out; they are failures otherwise.

    Raises:
        FormatError: If a position is not finite, or the rule needs headings that are not known.
        OpenDelgError: If no query has a positive, or none a negative: there is no figure.
    """
    queries, database, rule = dataset.queries, dataset.database, dataset.rule
    for role, images in (("database", database), ("query", queries)):
        _require_images(role, images, dataset.folder)
        _require_positions(role, images, dataset.folder)
    positives = near(
        queries.positions, database.positions, rule.radius, queries.regions, database.regions
    )
    if rule.max_heading_deg is not None:
        positives = _facing(queries, database, positives, rule.max_heading_deg, dataset.folder)
    has_positive = np.array([len(found) > 0 for found in positives])
    if not has_positive.any():
        raise OpenDelgError(
            f"a query must have a database image within {rule}, got none for any of "
            f"{len(queries)} queries in {str(dataset.folder)!r}; compare the positions of both"
        )
    if all(len(found) == len(database) for found in positives):
        raise OpenDelgError(
            f"a query must have a database image beyond {rule}, got none for any of "
            f"{len(queries)} queries in {str(dataset.folder)!r}"
            + ("; positions are UTM in metres, not degrees" if rule.unit == "m" else "")
        )
    if removes_queries:
        return replace(
            dataset,
            queries=queries.subset(has_positive),
            positives=tuple(found for found in positives if len(found)),
            num_removed=int(np.count_nonzero(~has_positive)),
        )
    return replace(dataset, positives=tuple(positives))


def require_files(folder: Path, names: Sequence[str], source: str) -> None:
    """Raises FormatError if a file is missing; names the first ones and the ``source``."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FormatError(
            f"images of {source} must exist in {str(folder)!r}, got {len(missing)} missing of "
            f"{len(names)}: {examples(missing)}"
        )


def examples(names: Sequence[str]) -> str:
    """The first names of a list, for messages."""
    more = ", ..." if len(names) > MAX_EXAMPLES else ""
    return ", ".join(repr(name) for name in names[:MAX_EXAMPLES]) + more


def _require_images(role: str, images: PlaceImages, folder: Path) -> None:
    if len(images) == 0:
        raise FormatError(f"dataset must have a {role} image, got none in {str(folder)!r}")
    repeated = [name for name, count in Counter(images.names).items() if count > 1]
    if repeated:
        raise FormatError(
            f"{role} image must appear once, got {examples(repeated)} repeated in {str(folder)!r}"
        )


def _require_positions(role: str, images: PlaceImages, folder: Path) -> None:
    is_wrong = ~np.all(np.abs(images.positions) <= MAX_COORDINATE, axis=1)  # NaN is wrong
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        east, north = images.positions[row]
        raise FormatError(
            f"positions must be finite and below {MAX_COORDINATE:g}, got ({east:g}, {north:g}) "
            f"of the {role} image {images.names[row]!r} in {str(folder)!r}"
        )


def _facing(
    queries: PlaceImages,
    database: PlaceImages,
    positives: Sequence[np.ndarray],
    max_heading_deg: float,
    folder: Path,
) -> list[np.ndarray]:
    """The positives that look the same way as their query."""
    for role, images in (("database", database), ("query", queries)):
        is_unknown = ~np.isfinite(images.headings)
        if is_unknown.any():
            unknown = [images.names[row] for row in np.flatnonzero(is_unknown)[: MAX_EXAMPLES + 1]]
            raise FormatError(
                f"headings must be known to compare them, got {np.count_nonzero(is_unknown)} "
                f"{role} images without one in {str(folder)!r}: {examples(unknown)}"
            )
    return [
        found[heading_differences(heading, database.headings[found]) <= max_heading_deg]
        for heading, found in zip(queries.headings, positives, strict=True)
    ]
