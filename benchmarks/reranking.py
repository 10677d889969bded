"""Re-ranking against scipy's KD-tree and scikit-image's RANSAC: time, and true from false pairs.

    python benchmarks/reranking.py
    python benchmarks/reranking.py --features DIR --groups FILE.csv [--json]

Both ways verify the same 100 candidates of 1000 features, in turn, in one run; the ratio of their
times is the result.  With ``--features`` (the .npz files of ``delg extract``) and ``--groups``
(columns image, group, role) the candidates are those of a real query and the area under the ROC
curve (AUC) of ``num_inliers`` is measured on labelled pairs, the false ones being the database
images of other groups whose global descriptors are the most similar.  Otherwise the candidates
are drawn and only times are measured.
"""

import argparse
import csv
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from skimage.measure import ransac
from skimage.transform import AffineTransform

from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.verification import VerificationSettings, verify_many

Pair = tuple[ImageFeatures, ImageFeatures]
NUM_ROUNDS = 5  # the two ways take turns this often


def main() -> None:
    """Measure, then print one line per result or one JSON object."""
    options = read_options()
    rng = np.random.default_rng(options.seed)
    if options.features is None:
        query, candidates = drawn_candidates(options.candidates, options.keypoints, rng)
        results: dict[str, float | int | str] = {"features": "drawn"}
    else:
        images = read_images(options.features, options.groups)
        pairs, is_true = labelled_pairs(images, options.pairs, rng)
        query, candidates = real_candidates(images, options.candidates, options.keypoints)
        results = {"features": "real"} | compare_separation(pairs, is_true)
    results |= compare_times(query, candidates, options.reference_candidates)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:26s} {value:.4g}" if isinstance(value, float) else f"{name:26s} {value}")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder of .npz files of delg extract")
    parser.add_argument("--groups", type=Path, help="CSV table: image,group,role")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--keypoints", type=int, default=1000, help="most features per image")
    parser.add_argument(
        "--reference-candidates",
        type=int,
        default=100,
        help="candidates that the slow way verifies; its time is scaled to all of them",
    )
    parser.add_argument("--pairs", type=int, default=200, help="labelled pairs, half of them true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if (options.features is None) != (options.groups is None):
        parser.error("--features and --groups go together")
    return options


def verify_slowly(query: ImageFeatures, candidate: ImageFeatures) -> int:
    """Inliers as the published code counts them, with the libraries that it uses."""
    distances, rows = cKDTree(candidate.local.descriptors).query(
        query.local.descriptors, distance_upper_bound=1.0
    )
    found = np.flatnonzero(np.isfinite(distances))
    if len(found) <= 3:
        return 0
    points = candidate.local.keypoints[rows[found]], query.local.keypoints[found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate triples
        _, inliers = ransac(
            points, AffineTransform, min_samples=3, residual_threshold=20, max_trials=1000, rng=0
        )
    return 0 if inliers is None else int(np.count_nonzero(inliers))


def verify_fast(
    query: ImageFeatures, candidates: list[ImageFeatures], mode: str = "standard"
) -> list[int]:
    """Inliers of each candidate as this package counts them."""
    found = verify_many(
        query.local,
        [candidate.local for candidate in candidates],
        query.size,
        [candidate.size for candidate in candidates],
        VerificationSettings(mode=mode),  # type: ignore[arg-type]
    )
    return [verification.num_inliers for verification in found]


def compare_times(
    query: ImageFeatures, candidates: list[ImageFeatures], num_reference: int
) -> dict[str, float | int | str]:
    """Seconds of both ways for all candidates, and their ratio."""
    num_reference = min(num_reference, len(candidates))
    verify_fast(query, candidates[:2])  # the first product starts the threads of the BLAS
    seconds: list[float] = []
    reference_seconds = 0.0
    for rows in np.array_split(np.arange(num_reference), NUM_ROUNDS):
        start = time.perf_counter()
        verify_fast(query, candidates)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        for row in rows:
            verify_slowly(query, candidates[row])
        reference_seconds += time.perf_counter() - start
    scaled = reference_seconds * len(candidates) / num_reference
    return {
        "candidates": len(candidates),
        "keypoints": len(query.local),
        "seconds": float(np.mean(seconds)),
        "reference_seconds": scaled,
        "ratio": scaled / float(np.mean(seconds)),
    }


def compare_separation(pairs: list[Pair], is_true: np.ndarray) -> dict[str, float | int | str]:
    """AUC of the inliers of both ways."""
    fast = [verify_fast(query, [candidate])[0] for query, candidate in pairs]
    slow = []
    for done, (query, candidate) in enumerate(pairs):
        slow.append(verify_slowly(query, candidate))
        if sys.stderr.isatty():
            print(f"\rpair {done + 1} of {len(pairs)}", end="", file=sys.stderr)
    paper = [verify_fast(query, [candidate], "paper")[0] for query, candidate in pairs]
    return {
        "true_pairs": int(is_true.sum()),
        "false_pairs": int((~is_true).sum()),
        "auc": area_under_curve(fast, is_true),
        "reference_auc": area_under_curve(slow, is_true),
        "paper_mode_auc": area_under_curve(paper, is_true),
    }


def area_under_curve(scores: list[int], is_true: np.ndarray) -> float:
    """Probability that a true pair scores higher than a false one, ties counting half."""
    ranks = rankdata(scores)
    num_true = int(is_true.sum())
    above = ranks[is_true].sum() - num_true * (num_true + 1) / 2
    return float(above / (num_true * (len(is_true) - num_true)))


def read_images(folder: Path, table: Path) -> list[tuple[ImageFeatures, str, str]]:
    """Features, group and role of each image of the table."""
    images = []
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            names = [f"{row['image']}.npz", str(Path(row["image"]).with_suffix(".npz"))]
            paths = [folder / name for name in [*names, *(Path(name).name for name in names)]]
            path = next((path for path in paths if path.exists()), None)
            if path is None:
                sys.exit(f"no features of {row['image']!r} in {str(folder)!r}")
            with np.load(path) as stored:
                local = LocalFeatures(
                    *(stored[key] for key in ("keypoints", "descriptors", "scores", "scales"))
                )
                width, height = (int(side) for side in stored["size"])
                features = ImageFeatures((width, height), stored["global_descriptor"], local)
            images.append((features, row["group"], row["role"]))
    return images


def labelled_pairs(
    images: list[tuple[ImageFeatures, str, str]], num_pairs: int, rng: np.random.Generator
) -> tuple[list[Pair], np.ndarray]:
    """Query and database images, half of one group, half the most similar of other groups."""
    true, false = [], []
    for query, group, role in images:
        if role == "database":
            continue
        database = [image for image in images if image[2] != "query" and image[0] is not query]
        true += [(query, other) for other, other_group, _ in database if other_group == group]
        others = [other for other, other_group, _ in database if other_group != group]
        others.sort(key=lambda other: -float(query.global_descriptor @ other.global_descriptor))
        false += [(query, other) for other in others[:5]]
    half = min(num_pairs // 2, len(true), len(false))
    chosen = [true[row] for row in rng.permutation(len(true))[:half]]
    chosen += [false[row] for row in rng.permutation(len(false))[:half]]
    return chosen, np.arange(2 * half) < half


def real_candidates(
    images: list[tuple[ImageFeatures, str, str]], num_candidates: int, num_keypoints: int
) -> tuple[ImageFeatures, list[ImageFeatures]]:
    """The image with the most features and those most similar to it, repeated if too few."""
    ranked = sorted((image for image, _, _ in images), key=lambda image: -len(image.local))
    query = ranked[0]
    full = [image for image in ranked[1:] if len(image.local) >= num_keypoints] or ranked[1:]
    full.sort(key=lambda image: -float(query.global_descriptor @ image.global_descriptor))
    candidates = [full[row % len(full)] for row in range(num_candidates)]
    return cut(query, num_keypoints), [cut(image, num_keypoints) for image in candidates]


def cut(image: ImageFeatures, num_keypoints: int) -> ImageFeatures:
    """The image with its first features only."""
    return ImageFeatures(
        image.size, image.global_descriptor, image.local.take(slice(num_keypoints))
    )


def drawn_candidates(
    num_candidates: int, num_keypoints: int, rng: np.random.Generator
) -> tuple[ImageFeatures, list[ImageFeatures]]:
    """A query and candidates, one in ten of which shows half of the query's points again.

    Descriptors gather around 300 words as those of a network do: about half of the query's find
    a neighbour within distance 1, as on photos.
    """
    words = rng.normal(size=(300, 128))
    query = draw(words, num_keypoints, rng)
    candidates = []
    for row in range(num_candidates):
        candidate = draw(words, num_keypoints, rng)
        if row % 10 == 0:
            half = num_keypoints // 2
            descriptors = query.local.descriptors[:half] + rng.normal(0, 0.03, (half, 128))
            candidate.local.descriptors[:half] = unit(descriptors)
            candidate.local.keypoints[:half] = 0.9 * query.local.keypoints[:half] + 16
            candidate.local.scales[:half] = query.local.scales[:half]
        candidates.append(candidate)
    return query, candidates


def draw(words: np.ndarray, num_keypoints: int, rng: np.random.Generator) -> ImageFeatures:
    """Features on the grid of the seven pyramid scales, without order."""
    scales = 2.0 ** rng.choice([-2, -1.5, -1, -0.5, 0, 0.5, 1], num_keypoints)
    points = np.floor(rng.uniform((0, 0), (1024, 768), (num_keypoints, 2)) * scales[:, None] / 16)
    noise = rng.normal(scale=0.95, size=(num_keypoints, words.shape[1]))
    local = LocalFeatures(
        keypoints=(points * 16 / scales[:, None]).astype(np.float32),
        descriptors=unit(words[rng.integers(len(words), size=num_keypoints)] + noise),
        scores=np.ones(num_keypoints, np.float32),
        scales=scales.astype(np.float32),
    )
    return ImageFeatures((1024, 768), np.zeros(1, np.float32), local)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
