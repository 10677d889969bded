"""What trained weights are compared with: a frozen ImageNet network, and SIFT on every pair.

    python benchmarks/baselines.py --method resnet50 --weights FILE.npz --csv FILE --images DIR
    python benchmarks/baselines.py --method sift --csv FILE --images DIR [--mutual] [--json]

The figures of weights on the same table, same protocol and same code of the metrics, come from

    delg evaluate groups --csv FILE --images DIR [--json]

``resnet50`` is the global stage of an ImageNet ResNet-50: conv1 to conv4 and GeM with power 3 on
the whole photo as it is, 1024 dimensions, one scale, nothing trained or whitened.  Its weights
are an .npz of keras.applications' ResNet-50 with torchvision's names (see ``training/teacher.py``).
``sift`` verifies every database image: up to 1000 points per photo, Lowe's ratio test, affine
RANSAC; images with equally many inliers stay in the order of the table.  Many points of the query
may match one point of the database image, so false pairs win with a dozen "inliers" on three
points; ``--mutual`` keeps mutual nearest neighbours only and is a far stronger baseline.

In percent, on 100 landmarks (smvs_landmarks) and 20 campus buildings (uva):

    table           method            mAP    R@1    R@5   R@10
    smvs_landmarks  resnet50         67.1   58.0   78.0   86.0
    smvs_landmarks  sift             33.7   24.0   43.0   54.0
    smvs_landmarks  sift --mutual    63.2   59.0   67.0   73.0
    uva             resnet50         51.2   97.5   99.4  100.0
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from opendelg.cli.progress import progress
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.errors import FormatError
from opendelg.evaluation.groups import RECALL_AT
from opendelg.image import read_image
from opendelg.metrics.retrieval import mean_scores
from opendelg.model.pooling import gem
from opendelg.training.run import keep_freed_memory
from opendelg.training.teacher import load_teacher

GEM_POWER = 3.0
NUM_DIMENSIONS = 1024  # of conv4 of a ResNet-50
NUM_POINTS = 1000  # SIFT points per photo, the strongest
MAX_RATIO = 0.8  # nearest to second nearest distance; Lowe, IJCV 2004, section 7.1
MAX_RESIDUAL = 3.0  # px of the database image; OpenCV's default
NUM_TRIALS = 2000  # triples; OpenCV's default
MIN_MATCHES = 4  # 3 fit any affine transform

Features = tuple[np.ndarray, np.ndarray]  # points (P, 2) px, descriptors (P, 128), both float32


def main() -> None:
    """Measure, then print a table or one JSON object."""
    options = read_options()
    cv2.setNumThreads(options.threads)
    torch.set_num_threads(options.threads)
    dataset = read_groups(options.csv, options.images)
    started = time.perf_counter()
    if options.method == "resnet50":
        scores = resnet50_scores(dataset, options.weights)
    else:
        scores = sift_scores(dataset, options.mutual)
    rankings = rank(dataset, scores)
    seconds = time.perf_counter() - started
    method = options.method + (" mutual" if options.mutual else "")
    figures = mean_scores(rankings, dataset.positives, RECALL_AT)
    report = {
        "protocol": "groups",
        "queries": len(dataset.query_ids),
        "database": len(dataset.database_ids),
        "global" if options.method == "resnet50" else "verified": {
            "mAP": figures.mean_average_precision,
            "recall_at": {str(k): value for k, value in figures.recall_at.items()},
        },
        "method": method,
        "seconds": seconds,
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report['queries']} queries, {report['database']} database images, {seconds:.0f} s")
    print("method         mAP   R@1   R@5  R@10")
    values = [figures.mean_average_precision, *figures.recall_at.values()]
    print(f"{method:12s}" + "".join(f"{100 * value:6.1f}" for value in values))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True, help="table: image,group,role")
    parser.add_argument("--images", type=Path, required=True, help="folder its paths start from")
    parser.add_argument("--method", choices=["resnet50", "sift"], required=True)
    parser.add_argument("--weights", type=Path, help=".npz of the ResNet-50")
    parser.add_argument("--mutual", action="store_true", help="SIFT: mutual nearest points only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if (options.method == "resnet50") != (options.weights is not None):
        parser.error("--weights goes with --method resnet50")
    if options.mutual and options.method != "sift":
        parser.error("--mutual goes with --method sift")
    return options


def rank(dataset: GroupsDataset, scores: np.ndarray) -> list[np.ndarray]:
    """Database ids of each query, best first, as ``delg evaluate groups`` ranks them.

    Args:
        dataset: Groups and roles.
        scores: (Q, N) of each query with each database image, larger is better.
    """
    rankings = []
    for query_id, row in zip(dataset.query_ids, scores, strict=True):
        order = dataset.database_ids[np.argsort(-row, kind="stable")]
        rankings.append(order[order != query_id])  # a query leaves its own ranking
    return rankings


@torch.inference_mode()
def resnet50_scores(dataset: GroupsDataset, weights: Path) -> np.ndarray:
    """Cosines (Q, N) of the frozen network's descriptors."""
    keep_freed_memory()
    network = load_teacher(weights)
    descriptors = np.empty((len(dataset.names), NUM_DIMENSIONS), np.float32)
    with progress("extracting", len(dataset.names)) as advance:
        for image_id in range(len(dataset.names)):
            pixels = torch.from_numpy(read_image(dataset.path(image_id)).pixels)
            images = (pixels.permute(2, 0, 1)[None].float() - 128) / 128  # what a teacher takes
            maps = network.stages(images)[-1]
            if maps.shape[1] != NUM_DIMENSIONS:
                raise FormatError(
                    f"weights must be a ResNet-50's with {NUM_DIMENSIONS} channels, "
                    f"got {maps.shape[1]} in {str(weights)!r}"
                )
            pooled = gem(maps, GEM_POWER)
            descriptors[image_id] = torch.nn.functional.normalize(pooled).numpy()[0]
            advance(image_id)
    scores: np.ndarray = descriptors[dataset.query_ids] @ descriptors[dataset.database_ids].T
    return scores


def sift_scores(dataset: GroupsDataset, mutual: bool) -> np.ndarray:
    """Inliers (Q, N) of every query with every database image."""
    sift = cv2.SIFT.create(NUM_POINTS)
    features = [sift_features(sift, dataset.path(row)) for row in range(len(dataset.names))]
    scores = np.zeros((len(dataset.query_ids), len(dataset.database_ids)), np.int64)
    with progress("verifying", len(scores)) as advance:
        for row, query_id in enumerate(dataset.query_ids):
            for column, database_id in enumerate(dataset.database_ids):
                scores[row, column] = num_inliers(features[query_id], features[database_id], mutual)
            advance(row)
    return scores


def sift_features(sift: cv2.SIFT, path: Path) -> Features:
    """SIFT of one photo; P may be 0."""
    grey = cv2.cvtColor(read_image(path).pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    return points, descriptors


def num_inliers(query: Features, database: Features, mutual: bool) -> int:
    """Matches of two photos that agree on one affine transform."""
    query_points, query_descriptors = query
    database_points, database_descriptors = database
    if len(query_points) == 0 or len(database_points) < 2:
        return 0
    # Squared distances; whole numbers below 2**24, so float32 is exact.
    distances = -2 * query_descriptors @ database_descriptors.T
    distances += (database_descriptors**2).sum(axis=1)
    distances += (query_descriptors**2).sum(axis=1)[:, None]
    rows = np.arange(len(distances))
    nearest = distances.argmin(axis=1)
    first = distances[rows, nearest]
    is_kept = distances.argmin(axis=0)[nearest] == rows if mutual else np.ones(len(rows), bool)
    distances[rows, nearest] = np.inf
    kept = np.flatnonzero(is_kept & (first < MAX_RATIO**2 * distances.min(axis=1)))
    if len(kept) < MIN_MATCHES:
        return 0
    transform, inliers = cv2.estimateAffine2D(
        query_points[kept],
        database_points[nearest[kept]],
        method=cv2.RANSAC,
        ransacReprojThreshold=MAX_RESIDUAL,
        maxIters=NUM_TRIALS,
    )
    return 0 if transform is None else int(np.count_nonzero(inliers))


if __name__ == "__main__":
    main()
