"""Google Landmarks v2 as a benchmark: its lists of images, its solutions, and submissions.

``index.csv`` and ``test.csv`` have the column ``id``; ``retrieval_solution_v2.1.csv`` has
``id,images,Usage`` and ``recognition_solution_v2.1.csv`` has ``id,landmarks,Usage``, the second
column with spaces between its values, empty or ``None`` for nothing.  Usage is ``Public``,
``Private`` or ``Ignored``; ignored queries are in no figure.  Unlike the lists for training, a
wrong row is an error: figures on a part of a benchmark are not comparable.

Source: SPEC 5.2; tensorflow/models, research/delf, google_landmarks_dataset/dataset_file_io.py at
3617973.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from opendelg.datasets.landmarks import LandmarkList, id_text, read_landmarks
from opendelg.errors import FormatError
from opendelg.whole_files import replacing

Usage = Literal["public", "private"]
USAGES: tuple[Usage, ...] = ("public", "private")
_IGNORED = "Ignored"
_NOTHING = ("", "None")
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_LANDMARK_ID = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class Solution:
    """What the queries of a benchmark should find; ignored ones are left out."""

    query_ids: np.ndarray  # (Q,) uint64, in the order of the file
    usages: np.ndarray  # (Q,) int8, positions in USAGES
    truths: tuple[np.ndarray, ...]  # Q arrays (P,) uint64 image ids, or int64 landmarks; may repeat
    num_ignored: int

    def take(self, rows: np.ndarray) -> "Solution":
        """Some of the queries, by their numbers (K,) int64."""
        truths = tuple(self.truths[row] for row in rows.tolist())
        return Solution(self.query_ids[rows], self.usages[rows], truths, self.num_ignored)


def read_image_list(table: Path) -> np.ndarray:
    """Image ids (N,) uint64 in ``index.csv`` or ``test.csv``, in the order of the file.

    Raises:
        FormatError: If a row is wrong, an id comes twice, or there is none.
        FileNotFoundError: If there is no such file.
    """
    ids, lines = array("Q"), array("q")
    for line, (image_id, *_) in _rows(table, ("id",)):
        ids.append(_image_id(image_id, line, table))
        lines.append(line)
    found = np.array(ids, np.uint64)
    _require_distinct(found, np.array(lines), table)
    if len(found) == 0:
        raise FormatError(f"list must have images, got none in {str(table)!r}")
    return found


def read_retrieval_solution(table: Path) -> Solution:
    """The index images that each query should find.

    Raises:
        FormatError: If a row is wrong, or no query is left.
        FileNotFoundError: If there is no such file.
    """
    return _read_solution(table, "images")


def read_recognition_solution(table: Path) -> Solution:
    """The landmarks that each query shows, often none.

    Raises:
        FormatError: If a row is wrong, or no query is left.
        FileNotFoundError: If there is no such file.
    """
    return _read_solution(table, "landmarks")


def read_labelled_images(table: Path) -> LandmarkList:
    """The images and landmarks in ``train_clean.csv`` or ``train.csv``, none of them wrong.

    Raises:
        FormatError: If a row is wrong; see also `read_landmarks`.
        FileNotFoundError: If there is no such file.
    """
    listed = read_landmarks(table)
    if listed.malformed_rows.count:
        raise FormatError(
            f"list must have correct rows, got {listed.malformed_rows.count} that are not in "
            f"{str(table)!r}, first {listed.malformed_rows.examples[0]}"
        )
    return listed


def write_retrieval_submission(
    path: Path, query_ids: Iterable[int], images: Iterable[Sequence[str]]
) -> None:
    """Write ``id,images``: the ids of the images found for each query, best first."""
    rows = zip(query_ids, images, strict=True)
    _write(path, "id,images", (f"{id_text(i)},{' '.join(found)}" for i, found in rows))


def write_recognition_submission(
    path: Path, query_ids: Iterable[int], predictions: Iterable[tuple[int, float] | None]
) -> None:
    """Write ``id,landmarks``: the landmark of each query and its confidence, or nothing."""
    rows = zip(query_ids, predictions, strict=True)
    # repr gives the shortest digits that read back as the same number: ties stay ties.
    texts = ((i, "" if one is None else f"{one[0]} {float(one[1])!r}") for i, one in rows)
    _write(path, "id,landmarks", (f"{id_text(i)},{text}" for i, text in texts))


def _write(path: Path, header: str, rows: Iterable[str]) -> None:
    with replacing(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(f"{row}\n" for row in (header, *rows))


def _read_solution(table: Path, column: Literal["images", "landmarks"]) -> Solution:
    ids, usages = array("Q"), array("b")
    truths: list[np.ndarray] = []
    num_ignored = 0
    seen, lines = array("Q"), array("q")
    for line, (image_id, values, usage, *_) in _rows(table, ("id", column, "Usage")):
        query_id = _image_id(image_id, line, table)
        seen.append(query_id)
        lines.append(line)
        if usage == _IGNORED:
            num_ignored += 1
            continue
        if usage.lower() not in USAGES or usage != usage.capitalize():
            raise FormatError(
                f"Usage must be Public, Private or Ignored, got {usage!r} in {_where(line, table)}"
            )
        ids.append(query_id)
        usages.append(USAGES.index(usage.lower()))
        texts = [] if values.strip() in _NOTHING else values.split()
        if column == "images":
            truths.append(np.array([_image_id(text, line, table) for text in texts], np.uint64))
        else:
            truths.append(np.array([_landmark_id(text, line, table) for text in texts], np.int64))
    _require_distinct(np.array(seen, np.uint64), np.array(lines), table)
    if len(ids) == 0:
        raise FormatError(
            f"solution must have queries, got none beside {num_ignored} ignored in {str(table)!r}"
        )
    return Solution(np.array(ids, np.uint64), np.array(usages, np.int8), tuple(truths), num_ignored)


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of a table that begins with ``columns``.

    Not by the csv module: it refuses fields of more than 131,072 characters, and nothing here is
    quoted.
    """
    with table.open(encoding="utf-8-sig", errors="replace", newline=None) as lines:
        header = next(lines, "").strip().split(",")
        if tuple(header[: len(columns)]) != columns:
            raise FormatError(
                f"table must have the columns {','.join(columns)}, got "
                f"{','.join(header)[:80]!r} in {str(table)!r}"
            )
        for line, text in enumerate(lines, start=2):
            fields = text.rstrip("\n").split(",")
            if fields == [""]:
                continue
            if len(fields) != len(header):
                raise FormatError(
                    f"row must have {len(header)} fields, got {len(fields)} in "
                    f"{_where(line, table)}"
                )
            yield line, fields


def _image_id(text: str, line: int, table: Path) -> int:
    if not _ID.fullmatch(text):
        raise FormatError(
            f"id must be 16 hexadecimal digits, got {text[:60]!r} in {_where(line, table)}"
        )
    return int(text, 16)


def _landmark_id(text: str, line: int, table: Path) -> int:
    if not _LANDMARK_ID.fullmatch(text):
        raise FormatError(f"landmark must be a number, got {text[:60]!r} in {_where(line, table)}")
    return int(text)


def _require_distinct(ids: np.ndarray, lines: np.ndarray, table: Path) -> None:
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if len(again):
        where = _where(int(lines[again].min()), table)
        image_id = id_text(int(ids[again[lines[again].argmin()]]))
        raise FormatError(f"id must appear once, got {image_id!r} again in {where}")


def _where(line: int, table: Path) -> str:
    return f"line {line} of {str(table)!r}"
