"""What a saved run must hold so that its figures mean something, whoever wrote the file.

A run that was evaluated a moment ago always does.  One that is read may be damaged, made by hand
or by another version, and must not end in a traceback or, worse, in figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from opendelg.datasets.landmark_benchmark import USAGES
from opendelg.datasets.revisited import LISTS
from opendelg.evaluation.ranking import NOT_VERIFIED, Ranking
from opendelg.metrics.revisited import LEVELS

if TYPE_CHECKING:
    from opendelg.evaluation.runs import Run

LANDMARKS = "landmarks"  # label of a truth that holds landmarks; all others hold database ids
_SETTINGS = ("model", "extraction", "search", "official_verification")
# Ground truth by protocol; a protocol that is not here is refused by `scoring`.
_TRUTHS: Mapping[str, set[str]] = {
    "groups": {"positives"},
    "places": {"positives"},
    "gldv2-retrieval": {"positives"},
    "gldv2-recognition": {LANDMARKS},
    "roxford5k": set(LISTS),
    "rparis6k": set(LISTS),
}


def require_scorable(run: "Run") -> None:
    """Raises ValueError, which says what is wrong, if a run cannot be scored."""
    _require_names(run)
    known = _TRUTHS.get(run.protocol)
    if known is None:
        return
    truth = set(run.truth)
    if truth != known and (truth or run.protocol != "places"):  # a challenge has no truth
        raise ValueError(f"ground truth {sorted(truth)} instead of {sorted(known)}")
    if run.num_database < 0:
        raise ValueError(f"{run.num_database} database images")
    for stage, rankings in run.stages.items():
        _require_rankings(stage, rankings, run.num_database)
    _require_settings(run.about)
    if set(run.truth) != set(LISTS):  # all others take rankings for whole from their start
        _require_no_gaps(run.stages)
    match run.protocol:
        case "groups" | "places":
            _require_distinct("positives", run.truth.get("positives", ()))
        case "roxford5k" | "rparis6k":
            _require_levels(run)
        case "gldv2-retrieval":
            _require_usages(run)
        case "gldv2-recognition":
            _require_usages(run)
            _require_labels(run)
    if run.protocol == "places":
        _require_about(run.about, "dataset", {"name": str, "near": str})


def _require_rankings(stage: str, rankings: Sequence[Ranking], num_database: int) -> None:
    if any(len(r) and r.positions[-1] >= num_database for r in rankings):
        raise ValueError(f"a rank beyond the {num_database} database images at stage {stage!r}")
    if not all(np.isfinite(r.similarities).all() for r in rankings):
        raise ValueError(f"similarities that are not finite at stage {stage!r}")
    if any((r.num_inliers < NOT_VERIFIED).any() for r in rankings):
        raise ValueError(f"inliers below {NOT_VERIFIED} at stage {stage!r}")
    _require_distinct(f"rankings of stage {stage!r}", [ranking.ids for ranking in rankings])


def _require_no_gaps(stages: Mapping[str, Sequence[Ranking]]) -> None:
    for stage, rankings in stages.items():
        if any(len(r) and r.positions[-1] != len(r) - 1 for r in rankings):
            raise ValueError(f"rankings with gaps at stage {stage!r}")


def _require_distinct(what: str, lists: Sequence[np.ndarray]) -> None:
    """No id may come twice for one query."""
    owners = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
    ids = _joined(lists)
    order = np.lexsort((ids, owners))
    if np.any((np.diff(ids[order]) == 0) & (np.diff(owners[order]) == 0)):
        raise ValueError(f"an image twice for one query in the {what}")


def _require_names(run: "Run") -> None:
    truths = [lists for label, lists in run.truth.items() if label != LANDMARKS]
    rankings = [[ranking.ids for ranking in stage] for stage in run.stages.values()]
    mentioned = np.unique(_joined(ids for lists in (*truths, *rankings) for ids in lists))
    nameless = set(mentioned.tolist()) - run.names.keys()
    if nameless:
        raise ValueError(f"no name of image {min(nameless)}")


def _require_levels(run: "Run") -> None:
    """A stage has one ranking for all levels, or one for each."""
    for way, _, level in (stage.partition(" ") for stage in run.stages):
        parts = {name for name in run.stages if name.partition(" ")[0] == way}
        if parts not in ({way}, {f"{way} {level}" for level in LEVELS}):
            raise ValueError(f"stages {sorted(parts)}, neither for all levels nor for each")
    for easy, hard, junk in zip(*(run.truth[label] for label in LISTS), strict=True):
        _require_distinct("ground truth", [np.concatenate([easy, hard, junk])])
    boxes = _extra(run, "boxes", "f", (len(run.queries), 4))
    if not np.isfinite(boxes).all() or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise ValueError("boxes of no area")


def _require_usages(run: "Run") -> None:
    usages = _extra(run, "usages", "i", (len(run.queries),))
    if not np.isin(usages, np.arange(len(USAGES))).all():
        raise ValueError(f"usages other than {', '.join(USAGES)}")


def _require_labels(run: "Run") -> None:
    images = _extra(run, "image_ids", "u", (len(run.queries),))
    if len(np.unique(images)) < len(images):
        raise ValueError("an image that is two queries")
    known = _extra(run, "labelled_ids", "i", (None,))
    labels = _extra(run, "labels", "i", (len(known),))
    ranked = _joined(ranking.ids for stage in run.stages.values() for ranking in stage)
    if (np.diff(known) < 1).any() or not np.isin(ranked, known).all() or (labels < 0).any():
        raise ValueError("ranked images without their landmark")
    _require_about(run.about, "vote", {"max_inliers": int})
    if run.about["vote"]["max_inliers"] < 1:
        raise ValueError("max_inliers below 1")


def _extra(run: "Run", name: str, kind: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array by name, of a kind of numbers and a shape; None is any length."""
    array = run.extra.get(name)
    if array is None:
        raise ValueError(f"no array {name!r}")
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for found, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind != kind:
        raise ValueError(f"array {name!r} of shape {array.shape} and type {array.dtype}")
    return array


def _require_settings(about: Mapping[str, Any]) -> None:
    """What `failures` reads to make the features of a run again; parts may be absent."""
    parts = {name: about.get(name, {}) for name in _SETTINGS}
    if isinstance(parts["search"], dict):
        parts["search.verification"] = parts["search"].get("verification", {})
    wrong = [name for name, part in parts.items() if not isinstance(part, dict)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} without settings in what made it")


def _require_about(about: Mapping[str, Any], part: str, kinds: Mapping[str, type]) -> None:
    facts = about.get(part)
    for name, kind in kinds.items():
        if not isinstance(facts, dict) or type(facts.get(name)) is not kind:
            raise ValueError(f"no {part}.{name} in what made it")


def _joined(lists: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*lists, np.zeros(0, np.int64)])
