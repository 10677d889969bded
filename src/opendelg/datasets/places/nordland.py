"""Two drives along one line, compared by frame: Nordland.

``database`` and ``queries`` hold the frames of two seasons; the last number in a file's name is
its frame, and equal frames show the same place.  Published results differ in what is near and
in which frames they use, so the number of frames is an option.  Known from secondary sources, as
the papers' own data do not say it in text:

- 10 frames, all 27,592 frames of both seasons: what tools call 25 m (the default of
  gmberton/VPR-datasets-downloader by its pull request 16; Tong-Jin01/EDTformer, issue 3);
- 1 frame, 27,592 in the database and each tenth, 2,760, as a query (the same pull request, after
  VPR-Bench);
- 2 frames, 3,450 of both seasons (Lu-Feng/SelaVPR, issue 6).
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from opendelg.datasets.places.dataset import (
    NearRule,
    PlaceImages,
    PlacesDataset,
    examples,
    with_positives,
)
from opendelg.datasets.places.utm_names import list_images, require_folder
from opendelg.errors import FormatError

LAYOUT = "nordland"
FRAMES = 10.0
_NUMBER = re.compile(r"[0-9]+(?=[^0-9]*$)")
_MAX_DIGITS = 9


def read_nordland(folder: Path, frames: float = FRAMES) -> PlacesDataset:
    """The dataset in two folders of numbered frames.

    Args:
        folder: Holds ``database`` and ``queries``, or ``images/test`` with them.
        frames: Greatest difference of frames that is still near; 0: only the same frame.

    Raises:
        FileNotFoundError: If the folders do not exist.
        FormatError: If a name has no number, or a folder has two images of one frame.
        OpenDelgError: If no query can find anything.
    """
    place = require_folder(folder)
    return with_positives(
        PlacesDataset(
            layout=LAYOUT,
            folder=place,
            database=_images(place, "database"),
            queries=_images(place, "queries"),
            rule=frame_rule(frames),
            positives=None,
        )
    )


def frame_rule(frames: float) -> NearRule:
    """What is near by frame; half a frame is the same as none."""
    return NearRule(0.5 if frames == 0 else frames, unit="frames")


def _images(folder: Path, role: str) -> PlaceImages:
    names = list_images(folder, role)
    frames = [_frame(name, folder) for name in names]
    counts = Counter(frames)
    repeated = [name for name, frame in zip(names, frames, strict=True) if counts[frame] > 1]
    if repeated:
        raise FormatError(
            f"each frame must have one image, got {examples(repeated)} in {str(folder)!r}"
        )
    return PlaceImages(
        names=tuple(names),
        positions=np.array([(frame, 0) for frame in frames], np.float64).reshape(-1, 2),
        regions=np.zeros(len(names), np.int64),
        headings=np.full(len(names), np.nan),
    )


def _frame(name: str, folder: Path) -> int:
    found = _NUMBER.search(Path(name).stem)
    if found is None or len(found[0]) > _MAX_DIGITS:
        raise FormatError(
            f"name of a frame must end in its number, got {name!r} in {str(folder)!r}"
        )
    return int(found[0])
