"""Fitting the probability `same` to labelled photos that the network was not trained on.

Each photo queries all others.  The pairs that enter the fit are those a search would verify: the
nearest by global descriptor, right and wrong.  That is the population that `same` is asked about;
random pairs would be too easy and make it overconfident.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.groups import read_groups
from opendelg.datasets.town import render_town
from opendelg.errors import OpenDelgError
from opendelg.extraction import Extractor
from opendelg.finding import find_photos, tell_unreadable
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.same import SameModel, fit_same
from opendelg.search import settings_for
from opendelg.training.config import CalibrationConfig
from opendelg.verification import VerificationSettings, verify_many
from opendelg.weights import Weights, write_weights

logger = logging.getLogger(__name__)

CANDIDATES = 20  # nearest neighbours of a photo that enter the fit


@dataclass(frozen=True)
class LabelledPairs:
    """What search found out about pairs, and the truth."""

    similarities: np.ndarray  # (P,) float64
    supports: np.ndarray  # (P,) float64, see `Verification.support`
    spreads: np.ndarray  # (P,) float64
    is_same: np.ndarray  # (P,) bool

    def __len__(self) -> int:
        return len(self.is_same)


@contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[object], None]]:
    """Show nothing."""
    yield lambda _done: None


def calibrate(path: Path, config: CalibrationConfig, root: Path = Path()) -> SameModel:
    """Fit `same` for a weights file under the default profile, and store it there.

    Args:
        path: Weights file; written again.
        config: Labelled photos, distractors and rendered towns.
        root: What relative folders refer to.

    Raises:
        OpenDelgError: If the photos hold no right or no wrong pair.
    """
    extractor = make_extractor(str(path))
    pairs = find_pairs(extractor, config, root)
    same = fit_pairs(pairs)
    logger.info("same: %s, log loss %.3f on %d pairs", same, log_loss(same, pairs), len(pairs))
    store_same(extractor.weights, same, pairs, path)
    return same


def find_pairs(
    extractor: Extractor,
    config: CalibrationConfig,
    root: Path = Path(),
    progress: Callable[[str, int], AbstractContextManager[Callable[[object], None]]] = no_progress,
) -> LabelledPairs:
    """The pairs that searches with labelled photos, and in rendered towns, would verify.

    Photos may be in tars (see `finding`); those that cannot be read are logged and left out.

    Args:
        extractor: Network and settings to search with.
        config: Labelled photos, distractors and rendered towns.
        root: What relative folders refer to.
        progress: Called with what is done and how many times; gives what is called each time.

    Raises:
        OpenDelgError: If the photos hold no right or no wrong pair.
    """
    labelled = find_photos([root / folder for folder in config.folders])
    others = find_photos([root / folder for folder in config.distractors])
    others = others[:: max(1, -(-len(others) // config.max_distractors))]
    labels = {photo: str(photo.parent) for photo in labelled}
    found = [_pairs_of_photos(extractor, labels, others, progress)]
    for seed in config.towns:
        with tempfile.TemporaryDirectory(prefix="delg-") as folder:
            town = render_town(Path(folder) / "town", seed)
            table = read_groups(town.groups, town.folder)
            labels = {table.path(row): group for row, group in enumerate(table.groups)}
            found.append(_pairs_of_photos(extractor, labels, [], progress))
    pairs = joined(found)
    if not 0 < np.count_nonzero(pairs.is_same) < len(pairs.is_same):
        raise OpenDelgError("calibration photos must give right and wrong pairs, got only one kind")
    return pairs


def joined(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """The pairs of several sets of photos."""
    return LabelledPairs(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(LabelledPairs)
        )
    )


def _pairs_of_photos(
    extractor: Extractor,
    labels: dict[Path, str],
    others: list[Path],
    progress: Callable[[str, int], AbstractContextManager[Callable[[object], None]]],
) -> LabelledPairs:
    """Pairs of labelled photos and distractors, searched in a collection of just these."""
    known = {photo.resolve(): label for photo, label in labels.items()}
    with tempfile.TemporaryDirectory(prefix="delg-") as folder:
        made = Collection.create(Path(folder), recipe_of(extractor), extractor.config.precision)
        with made as collection:
            plan = plan_indexing(collection, [*labels, *others])
            with progress("indexing", len(labels) + len(others)) as advance:
                report = index_photos(collection, extractor, plan, progress=advance)
            for path, reason in report.failures:
                tell_unreadable(path, reason)
            with progress("verifying", len(labels)) as advance:
                return labelled_pairs(
                    collection,
                    lambda photo: known.get(photo.resolve()),
                    settings=settings_for(extractor.config, VerificationSettings()),
                    progress=advance,
                )


def labelled_pairs(
    collection: Collection,
    label_of: Callable[[Path], str | None],
    candidates: int = CANDIDATES,
    settings: VerificationSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> LabelledPairs:
    """Verify each labelled image against its nearest neighbours.

    Args:
        collection: Labelled images, and others that show nothing of them.
        label_of: Label of a path; None is unlabelled, which never queries and is never right.
        candidates: Neighbours of each image.
        settings: Of the verification.
        progress: Called with the id of each image that is done.
    """
    ids, descriptors = collection.global_descriptors()
    images = collection.images(ids)
    labels = [label_of(image.path) for image in images]
    rows: list[tuple[float, float, float, bool]] = []
    for row, label in enumerate(labels):
        if label is None:
            continue
        similarities = descriptors @ descriptors[row]
        order = np.argsort(-similarities, kind="stable")
        nearest = order[order != row][:candidates]
        query, *locals_ = collection.local_features(ids[[row, *nearest]])
        sizes = [images[other].size for other in nearest]
        found = verify_many(query, locals_, images[row].size, sizes, settings)
        rows += [
            (similarities[other], one.support, one.spread, labels[other] == label)
            for other, one in zip(nearest, found, strict=True)
        ]
        if progress is not None:
            progress(int(ids[row]))
    similarities, supports, spreads, is_same = np.array(rows, np.float64).reshape(-1, 4).T
    return LabelledPairs(similarities, supports, spreads, is_same.astype(bool))


def fit_pairs(pairs: LabelledPairs) -> SameModel:
    """The logistic model of labelled pairs."""
    return fit_same(pairs.similarities, pairs.supports, pairs.spreads, pairs.is_same)


def store_same(weights: Weights, same: SameModel, pairs: LabelledPairs, path: Path) -> None:
    """Write weights with another probability model, which was fitted to these pairs."""
    is_half = any(array.dtype == np.float16 for array in weights.state.values())
    write_weights(
        path,
        weights.name,
        weights.state,
        weights.model,
        weights.score_threshold,
        same,
        weights.training
        | {"calibrated": {"pairs": len(pairs), "log_loss": round(log_loss(same, pairs), 6)}},
        precision="float16" if is_half else "float32",
    )


def log_loss(same: SameModel, pairs: LabelledPairs) -> float:
    """Mean negative log-likelihood of the pairs, in nats."""
    probability = same.probability(pairs.similarities, pairs.supports, pairs.spreads)
    right = np.where(pairs.is_same, probability, 1 - probability)
    return float(-np.log(np.maximum(right, 1e-12)).mean())
