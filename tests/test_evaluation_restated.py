"""Figures of every protocol against SPEC 5 said again: loops over lists, nothing of ours.

Each run is random.  The first ones are saved and read again: what is tested is what `rescore`
prints.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.evaluation.scoring import report
from tests.run_samples import RECIPE

NUM_IMAGES = 40
NUM_SAVED = 20
LEVELS = {  # positives and junk of each level, by list
    "easy": (["easy"], ["junk", "hard"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["junk", "easy"]),
}
Lists = dict[str, list[int]]


# The protocols, one query at a time.


def revisited(ranking: list[int], truth: Lists, level: str) -> dict[str, float]:
    """The positions of positives move up by the junk before them; trapezoids; cut-offs."""
    right, ignored = ([i for name in names for i in truth[name]] for names in LEVELS[level])
    if not right:
        return dict.fromkeys(("mAP", "mP@1", "mP@5", "mP@10"), math.nan)
    positions = []
    for position, image in enumerate(ranking):
        if image in right:
            positions.append(position - sum(other in ignored for other in ranking[:position]))
    area = 0.0
    for found, position in enumerate(positions):
        before = 1.0 if position == 0 else found / position
        area += (before + (found + 1) / (position + 1)) / 2 / len(right)
    values = {"mAP": area}
    for k in (1, 5, 10):
        last = min(max(positions) + 1, k) if positions else k
        values[f"mP@{k}"] = sum(position + 1 <= last for position in positions) / last
    return values


def groups(ranking: list[int], right: list[int]) -> dict[str, float]:
    if not right:
        return dict.fromkeys(("mAP", "R@1", "R@5", "R@10"), math.nan)
    precisions = [
        sum(other in right for other in ranking[: rank + 1]) / (rank + 1)
        for rank, image in enumerate(ranking)
        if image in right
    ]
    recalls = {f"R@{k}": float(bool(set(ranking[:k]) & set(right))) for k in (1, 5, 10)}
    return {"mAP": sum(precisions) / len(right), **recalls}


def places(ranking: list[int], right: list[int]) -> dict[str, float]:
    return {f"R@{k}": float(bool(set(ranking[:k]) & set(right))) for k in (1, 5, 10, 20)}


def retrieval(ranking: list[int], right: list[int]) -> dict[str, float]:
    total = 0.0
    for k in range(1, min(len(ranking), 100) + 1):
        if ranking[k - 1] in right:
            total += sum(image in right for image in ranking[:k]) / k
    found = sum(image in right for image in ranking[:10])
    return {"mAP@100": total / min(len(right), 100) if right else 0.0, "P@10": found / 10}


def prediction(votes: list[tuple[int, float, int]]) -> tuple[int, float] | None:
    """Landmark and confidence of (landmark, similarity, inliers)."""
    sums: dict[int, float] = {}
    for landmark, similarity, inliers in votes:
        sums[landmark] = sums.get(landmark, 0.0) + min(max(inliers, 0), 70) / 70 + similarity
    return min(sums.items(), key=lambda item: (-item[1], item[0])) if sums else None


def recognition(
    predicted: Sequence[tuple[int, float] | None], truths: list[list[int]], images: list[int]
) -> dict[str, float]:
    rows = [
        (-one[1], image, one[0] in truth)
        for one, truth, image in zip(predicted, truths, images, strict=True)
        if one is not None
    ]
    total, num_right = 0.0, 0
    for place, (_, _, is_right) in enumerate(sorted(rows), start=1):
        num_right += is_right
        total += is_right * num_right / place
    judged = [
        float(one is not None and one[0] in truth)
        for one, truth in zip(predicted, truths, strict=True)
        if truth
    ]
    if not judged:
        return {"GAP": math.nan, "accuracy": math.nan}
    return {"GAP": total / len(judged), "accuracy": sum(judged) / len(judged)}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of each measure over the queries that have it."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        found[name] = sum(values) / len(values) if values else math.nan
    return found


# Random runs.


def drawn(draw: random.Random, most: int = NUM_IMAGES) -> list[int]:
    return draw.sample(range(NUM_IMAGES), draw.choice([0, 1, 5, most, draw.randint(0, most)]))


def ranking_of(draw: random.Random, order: list[int]) -> Ranking:
    values = sorted((draw.choice([0.25, 0.5, draw.random()]) for _ in order), reverse=True)
    inliers = [draw.choice([-1, 0, 35, 70, 140]) for _ in order]
    return Ranking(
        np.array(order, np.int64),
        np.arange(len(order)),
        np.array(values, np.float32),
        np.array(inliers, np.int32),
    )


def make(draw: random.Random, protocol: str, truth: list[Lists], **changes: Any) -> Run:
    stages = {
        stage: tuple(ranking_of(draw, drawn(draw)) for _ in truth)
        for stage in changes.pop("stages", ("global", "verified"))
    }
    return Run(
        protocol=protocol,
        queries=tuple(f"q{number}" for number in range(len(truth))),
        names={number: f"{number}.jpg" for number in range(NUM_IMAGES)},
        num_database=NUM_IMAGES,
        truth={label: tuple(np.array(of[label], np.int64) for of in truth) for label in truth[0]},
        stages=stages,
        about={**RECIPE, **changes.pop("about", {})},
        **changes,
    )


def scored(run: Run, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    if seed < NUM_SAVED:
        write_run(folder / "run.zip", run)
        run = read_run(folder / "run.zip")
    return {stage: dict(row) for stage, row in report(run).figures.items()}


def equal(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for stage, row in expected.items():
        assert found[stage] == pytest.approx(row, abs=1e-12, nan_ok=True), stage


@pytest.mark.parametrize("seed", range(300))
def test_revisited(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    truth = []
    for _ in range(3):
        ids = draw.sample(range(NUM_IMAGES), NUM_IMAGES)
        cuts = sorted(draw.choices([0, *range(NUM_IMAGES)], k=4))
        truth.append(
            {k: ids[a:b] for k, a, b in zip(("easy", "hard", "junk"), cuts, cuts[1:], strict=False)}
        )
    stages = ("global", *(f"official {level}" for level in LEVELS))
    boxes = np.array([[0.0, 0, 1, 1]] * 3)
    run = make(draw, "roxford5k", truth, stages=stages, extra={"boxes": boxes})
    expected = {}
    for way in ("global", "official"):
        for level in LEVELS:
            rankings = run.stages[way if way == "global" else f"{way} {level}"]
            rows = [
                revisited(ranking.ids.tolist(), of, level)
                for ranking, of in zip(rankings, truth, strict=True)
            ]
            expected[f"{way} {level}"] = mean(rows)
    equal(scored(run, seed, tmp_path), expected)


@pytest.mark.parametrize("protocol", ["groups", "places"])
@pytest.mark.parametrize("seed", range(300))
def test_groups_and_places(protocol: str, seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    truth = [{"positives": drawn(draw, 12)} for _ in range(3)]
    about = {"dataset": {"name": "utm", "near": "25 m"}}
    run = make(draw, protocol, truth, about=about)
    measure = groups if protocol == "groups" else places
    expected = {
        stage: mean(
            [measure(r.ids.tolist(), of["positives"]) for r, of in zip(rows, truth, strict=True)]
        )
        for stage, rows in run.stages.items()
    }
    equal(scored(run, seed, tmp_path), expected)


@pytest.mark.parametrize("seed", range(300))
def test_landmark_retrieval(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    truth = [{"positives": drawn(draw)} for _ in range(4)]
    usages = [0, 1, *draw.choices([0, 1], k=2)]
    run = make(draw, "gldv2-retrieval", truth, extra={"usages": np.array(usages, np.int8)})
    expected: dict[str, dict[str, float]] = {}
    for stage, rankings in run.stages.items():
        rows = [
            retrieval(r.ids.tolist(), of["positives"])
            for r, of in zip(rankings, truth, strict=True)
        ]
        of_usage = {
            usage: mean([row for row, own in zip(rows, usages, strict=True) if own == number])
            for number, usage in enumerate(("public", "private"))
        }
        expected[stage] = {
            f"{name} {usage}": row[name] for usage, row in of_usage.items() for name in row
        }
    equal(scored(run, seed, tmp_path), expected)


@pytest.mark.parametrize("seed", range(300))
def test_landmark_recognition(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    truth = [{"landmarks": draw.sample(range(5), draw.randint(0, 2))} for _ in range(8)]
    usages = [0, 1, *draw.choices([0, 1], k=6)]
    images = [draw.getrandbits(64) for _ in truth]
    labels = [draw.randrange(5) for _ in range(NUM_IMAGES)]
    run = make(
        draw,
        "gldv2-recognition",
        truth,
        about={"vote": {"neighbours": 3, "max_inliers": 70}},
        extra={
            "usages": np.array(usages, np.int8),
            "image_ids": np.array(images, np.uint64),
            "labelled_ids": np.arange(NUM_IMAGES),
            "labels": np.array(labels, np.int64),
        },
    )
    expected: dict[str, dict[str, float]] = {}
    for stage, rankings in run.stages.items():
        predicted = [
            prediction(
                [
                    (labels[image], float(similarity), int(inliers))
                    for image, similarity, inliers in zip(
                        *(r.ids.tolist(), r.similarities, r.num_inliers), strict=True
                    )
                ]
            )
            for r in rankings
        ]
        expected[stage] = {}
        for number, usage in enumerate(("public", "private")):
            own = [query for query in range(8) if usages[query] == number]
            row = recognition(
                [predicted[query] for query in own],
                [truth[query]["landmarks"] for query in own],
                [images[query] for query in own],
            )
            expected[stage] |= {f"{name} {usage}": value for name, value in row.items()}
    equal(scored(run, seed, tmp_path), expected)
