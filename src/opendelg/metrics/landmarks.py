"""Google Landmarks v2: mean average precision at 100, and global average precision.

Retrieval: average precision is a finite sum over the first 100, divided by the number of images
that 100 results could hold.  An image that is returned again counts nothing, but takes its rank.
The mean is over all queries, those for which nothing was returned too.

Recognition: the predictions of all images, one each at most, form one list by confidence; its
precisions at the right ones are summed and divided by the number of images that show a landmark.

Source: SPEC 5.2; tensorflow/models, research/delf, google_landmarks_dataset/metrics.py at
e4009b2.
"""

from collections.abc import Sequence

import numpy as np

from opendelg.metrics.bootstrap import Statistic

MAX_PREDICTIONS = 100  # of a query; metrics.py, MeanAveragePrecision
NO_LANDMARK = -1  # instead of a landmark: nothing is predicted


def average_precision_at(
    ranking: np.ndarray, positives: np.ndarray, k: int = MAX_PREDICTIONS
) -> float:
    """Average precision of the first k images of one query.

    Args:
        ranking: (K,) database ids, best first; ids may repeat.
        positives: (P,) database ids that the query should find; one that repeats counts as often
            in the divisor, as in the official code.
        k: Number of results looked at.

    Returns:
        Value in [0, 1]; 0 without positives: such queries are in the mean.

    Raises:
        ValueError: If k is below 1.
    """
    right = _first_right(ranking, positives, k)
    if len(positives) == 0:
        return 0.0
    ranks = np.flatnonzero(right)  # 0-based
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    return float(precision.sum() / min(len(positives), k))


def precision_at(ranking: np.ndarray, positives: np.ndarray, k: int) -> float:
    """Share of positives among the first k, images that come again not counted.

    Returns:
        Value in [0, 1]; a ranking shorter than k is filled up with wrong images.

    Raises:
        ValueError: If k is below 1.
    """
    return float(np.count_nonzero(_first_right(ranking, positives, k)) / k)


def precisions_of_predictions(
    image_ids: np.ndarray,
    landmarks: np.ndarray,
    confidences: np.ndarray,
    truths: Sequence[np.ndarray],
    ignore_without_landmark: bool = False,
) -> np.ndarray:
    """What each image adds to the global average precision.

    The order is by confidence, then by image id, then by landmark.

    Args:
        image_ids: (Q,) uint64, distinct.
        landmarks: (Q,) int64 predictions; NO_LANDMARK for images that have none.
        confidences: (Q,) float64; that of an image without a prediction is not looked at.
        truths: Q arrays (L,) int64, all landmarks that are right; L may be 0.
        ignore_without_landmark: Leave out images that show no landmark; without, a prediction
            for one is wrong.

    Returns:
        (Q,) float64: the precision of the list up to a right prediction, 0 where it is wrong or
        missing, NaN for images that show no landmark.  The mean of the others is the figure.

    Raises:
        ValueError: If lengths differ, an image comes twice, or a confidence is NaN.
    """
    if {len(landmarks), len(confidences), len(truths)} != {len(image_ids)}:
        raise ValueError(
            f"arrays must be as long as image_ids, got {len(landmarks)}, {len(confidences)} and "
            f"{len(truths)} for {len(image_ids)}"
        )
    if len(np.unique(image_ids)) < len(image_ids):
        raise ValueError("image_ids must be distinct")
    has_landmark = np.array([len(truth) > 0 for truth in truths], bool)
    is_listed = landmarks != NO_LANDMARK
    if np.isnan(confidences[is_listed]).any():
        raise ValueError("confidences must be numbers, got NaN")
    if ignore_without_landmark:
        is_listed &= has_landmark
    listed = np.flatnonzero(is_listed)
    order = listed[np.lexsort((landmarks[listed], image_ids[listed], -confidences[listed]))]
    is_right = np.array([landmarks[image] in truths[image] for image in order.tolist()], bool)
    precision = np.cumsum(is_right) / np.arange(1, len(order) + 1)
    added = np.where(has_landmark, 0.0, np.nan)
    added[order[is_right]] = precision[is_right]
    return added


def global_average_precision(
    image_ids: np.ndarray,
    landmarks: np.ndarray,
    confidences: np.ndarray,
    truths: Sequence[np.ndarray],
    ignore_without_landmark: bool = False,
) -> float:
    """Area under the precision-recall curve of all predictions in one list.

    Takes and raises what `precisions_of_predictions` does.

    Returns:
        Value in [0, 1]; NaN if no image shows a landmark.
    """
    added = precisions_of_predictions(
        image_ids, landmarks, confidences, truths, ignore_without_landmark
    )
    counted = added[~np.isnan(added)]
    return float(counted.mean()) if len(counted) else float("nan")


def resampled_global_average_precision(
    image_ids: np.ndarray,
    landmarks: np.ndarray,
    confidences: np.ndarray,
    truths: Sequence[np.ndarray],
    is_counted: np.ndarray,
) -> Statistic:
    """The figure of images drawn with replacement, as a statistic for `bootstrap`.

    An image that is drawn again is an image more, with the same prediction and place in the list.

    Args:
        image_ids: (Q,) uint64, distinct.
        landmarks: (Q,) int64 predictions or NO_LANDMARK.
        confidences: (Q,) float64.
        truths: Q arrays (L,) int64.
        is_counted: (Q,) bool; of images drawn, the others are left out.
    """
    listed = np.flatnonzero(is_counted & (landmarks != NO_LANDMARK))
    order = listed[np.lexsort((landmarks[listed], image_ids[listed], -confidences[listed]))]
    places = np.full(len(image_ids), len(order), np.int32)  # behind the list: never right
    places[order] = np.arange(len(order))
    right_at = np.array([landmarks[image] in truths[image] for image in order.tolist()] + [False])
    shows_landmark = is_counted & np.array([len(truth) > 0 for truth in truths], bool)

    def statistic(chosen: np.ndarray) -> np.ndarray:
        right = right_at[np.sort(places[chosen], axis=1)]
        precision = np.cumsum(right, axis=1) / np.arange(1, chosen.shape[1] + 1)
        # A draw without any landmark has nothing to find, and finds nothing.
        num_landmarks = np.maximum(shows_landmark[chosen].sum(axis=1), 1)
        figures: np.ndarray = (precision * right).sum(axis=1) / num_landmarks
        return figures

    return statistic


def is_right(landmarks: np.ndarray, truths: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each prediction (Q,) is right, float64: 1 or 0; NaN for images without a landmark."""
    return np.array(
        [
            float(landmark in truth) if len(truth) else np.nan
            for landmark, truth in zip(landmarks.tolist(), truths, strict=True)
        ],
        np.float64,
    )


def _first_right(ranking: np.ndarray, positives: np.ndarray, k: int) -> np.ndarray:
    """Which of the first k images (min(k, K),) bool are positives that did not come before."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    head = ranking[:k]
    is_first = np.zeros(len(head), bool)
    is_first[np.unique(head, return_index=True)[1]] = True
    right: np.ndarray = np.isin(head, positives) & is_first
    return right
