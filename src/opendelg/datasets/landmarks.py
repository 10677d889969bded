"""Google Landmarks v2 as a training set: its lists, contiguous labels and a fixed split.

``train_clean.csv`` has the columns ``landmark_id,images`` (ids with spaces between them) and
``train.csv`` has ``id,url,landmark_id``.  An id is 16 lower-case hexadecimal digits; it is kept as
an unsigned 64-bit number, since four million strings take half a gigabyte.  Rows that are wrong
are counted and left out: in a list of this size some always are.

Source: SPEC 2.1 and 5.2; Weyand et al., "Google Landmarks Dataset v2", CVPR 2020.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opendelg.datasets.faults import MAX_EXAMPLES, Faults
from opendelg.errors import FormatError
from opendelg.scrambling import scrambled

# One image of so many is held out for validation, per landmark (SPEC 2.1: 0.2 of them).
HELD_OUT_ONE_IN = 5
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_LANDMARK_ID = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class LandmarkList:
    """The images of a list, each once."""

    ids: np.ndarray  # (N,) uint64, ascending
    labels: np.ndarray  # (N,) int64, positions in ``landmark_ids``
    landmark_ids: np.ndarray  # (C,) int64, ascending
    malformed_rows: Faults = field(default_factory=Faults)
    repeated_images: Faults = field(default_factory=Faults)  # kept once
    images_with_two_labels: Faults = field(default_factory=Faults)  # left out: nobody knows

    def is_held_out(self) -> np.ndarray:
        """Which images (N,) bool are for validation: max(1, a fifth) of every landmark.

        These are the first of the landmark in the order of a fixed hash of their ids, so the
        split follows from the list alone: neither from a library's shuffle nor from which tars
        are there.  A landmark of one image has none to train on (as in the open code, SPEC 2.1).
        """
        order = np.lexsort((scrambled(self.ids), self.labels))
        counts = np.bincount(self.labels, minlength=len(self.landmark_ids))
        firsts = np.cumsum(counts) - counts
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order)) - firsts[self.labels[order]]
        held_out: np.ndarray = ranks < np.maximum(1, counts // HELD_OUT_ONE_IN)[self.labels]
        return held_out

    def split_hash(self) -> str:
        """SHA-256 of ids, labels and split (big-endian uint64, int32, uint8; each for all)."""
        parts = (self.ids.astype(">u8"), self.labels.astype(">i4"), self.is_held_out().astype("u1"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def id_text(image_id: int) -> str:
    """An image id as in lists and file names."""
    return f"{image_id:016x}"


def read_landmarks(table: Path) -> LandmarkList:
    """The images and labels in ``train_clean.csv`` or ``train.csv``.

    Raises:
        FormatError: If the file is neither, or no image is left.
        FileNotFoundError: If there is no such file.
    """
    malformed = Faults()
    ids, landmarks = array("Q"), array("q")
    for image_id, landmark in _read_pairs(table, malformed):
        ids.append(int(image_id, 16))
        landmarks.append(landmark)
    listed = _distinct(np.array(ids, np.uint64), np.array(landmarks, np.int64), malformed)
    if len(listed.ids) == 0:
        raise FormatError(
            f"list must have images with one label, got none in {str(table)!r} "
            f"({malformed.count} malformed rows)"
        )
    return listed


def _read_pairs(table: Path, malformed: Faults) -> Iterator[tuple[str, int]]:
    """Image id and landmark id of each image that a list names."""
    # Not by the csv module: it refuses the fields of landmarks with thousands of images, and what
    # is quoted here are addresses, which nobody reads.
    with table.open(encoding="utf-8-sig", errors="replace") as lines:
        header = next(lines, "").strip().split(",")
        if header == ["landmark_id", "images"]:
            is_clean = True
        elif len(header) > 1 and (header[0], header[-1]) == ("id", "landmark_id"):
            is_clean = False
        else:
            raise FormatError(
                "list must have the columns landmark_id,images or id,url,landmark_id, "
                f"got {','.join(header)[:80]!r} in {str(table)!r}"
            )
        for number, line in enumerate(lines, start=2):
            row = line.strip()
            first, comma, _ = row.partition(",")
            last = row.rpartition(",")[2]
            images, landmark = (last.split(), first) if is_clean else ([first], last)
            if not row:
                continue
            if not comma or not images or not _LANDMARK_ID.fullmatch(landmark):
                malformed.add(f"line {number}: {row[:60]!r}")
                continue
            for image_id in images:
                if _ID.fullmatch(image_id):
                    yield image_id, int(landmark)
                else:
                    malformed.add(f"line {number}: image {image_id[:60]!r}")


def _distinct(ids: np.ndarray, landmarks: np.ndarray, malformed: Faults) -> LandmarkList:
    """Each image once; none that has two labels."""
    order = np.lexsort((landmarks, ids))
    ids, landmarks = ids[order], landmarks[order]
    is_again = np.zeros(len(ids), bool)
    is_again[1:] = ids[1:] == ids[:-1]
    is_other = is_again.copy()
    is_other[1:] &= landmarks[1:] != landmarks[:-1]
    disputed = np.unique(ids[is_other])
    kept = ~is_again & ~np.isin(ids, disputed)
    landmark_ids, labels = np.unique(landmarks[kept], return_inverse=True)
    return LandmarkList(
        ids[kept],
        labels.astype(np.int64),
        landmark_ids,
        malformed,
        id_faults(ids[is_again & ~is_other]),
        id_faults(disputed),
    )


def id_faults(ids: np.ndarray) -> Faults:
    """Images (N,) uint64 of which each is a case."""
    return Faults(len(ids), [id_text(image_id) for image_id in ids[:MAX_EXAMPLES].tolist()])
