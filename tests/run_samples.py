"""A small run of every protocol, as its evaluation makes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run

NAMES = {number: f"photos/{number}.jpg" for number in range(6)}
QUERIES = ("a.jpg", "b.jpg", "c.jpg")
RECIPE: Mapping[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "model": {"name": "starter", "sha256": "12"},
    "extraction": {},
    "search": {"verification": {}},
}


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def verified(order: list[int], inliers: list[int]) -> Ranking:
    similarities = np.linspace(0.9, 0.1, len(order), dtype=np.float32)
    return Ranking(ids(*order), np.arange(len(order)), similarities, np.array(inliers, np.int32))


def unverified(*order: int) -> Ranking:
    return verified(list(order), [-1] * len(order))


GLOBAL = (unverified(0, 1, 2, 3, 4, 5), unverified(3, 2, 1), unverified(5, 4))
VERIFIED = (
    verified([1, 0, 2, 3, 4, 5], [9, 4, -1, -1, -1, -1]),
    verified([2, 3, 1], [20, 8, 0]),
    verified([5, 4], [3, 3]),
)
TRUTH = {"positives": (ids(1, 3), ids(2), ids())}
STAGES = {"global": GLOBAL, "verified": VERIFIED}


def make_run(protocol: str) -> Run:
    changes: dict[str, Any] = {"truth": TRUTH, "stages": STAGES, "extra": {}, "about": {}}
    usages = np.array([0, 1, 1], np.int8)
    match protocol:
        case "places":
            changes["about"] = {"dataset": {"name": "utm", "near": "25 m"}}
        case "gldv2-retrieval":
            changes["extra"] = {"usages": usages}
        case "gldv2-recognition":
            changes["truth"] = {"landmarks": (ids(7), ids(3, 8), ids())}
            changes["about"] = {"vote": {"neighbours": 3, "max_inliers": 70}}
            changes["extra"] = {
                "usages": usages,
                "image_ids": np.array([11, 12, 13], np.uint64),
                "labelled_ids": np.arange(6),
                "labels": ids(7, 7, 3, 8, 8, 7),
            }
        case "roxford5k" | "rparis6k":
            changes["truth"] = {
                "easy": (ids(1), ids(), ids()),
                "hard": (ids(3), ids(2), ids()),
                "junk": (ids(0), ids(3), ids(5)),
            }
            official = {f"official {level}": VERIFIED for level in ("easy", "medium", "hard")}
            changes["stages"] = {**STAGES, **official}
            changes["extra"] = {"boxes": np.array([[0, 0, 9, 9]] * 3, np.float64)}
    changes["about"] = {**RECIPE, **changes["about"]}
    return Run(protocol=protocol, queries=QUERIES, names=NAMES, num_database=6, **changes)


PROTOCOLS = (
    *("groups", "places", "gldv2-retrieval", "gldv2-recognition", "roxford5k", "rparis6k"),
)


def runs_of_all_protocols() -> list[Run]:
    return [make_run(protocol) for protocol in PROTOCOLS]
