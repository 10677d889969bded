"""Global descriptors of distractors in files of some thousands, each written whole.

A shard holds images that follow each other in one part of their source, so that a run that was
stopped goes on with the next shard.  What was read is told by the part's stamp, what extracted it
by the recipe.
"""

import json
import re
import secrets
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.collection import Recipe
from opendelg.datasets.distractors import Part
from opendelg.errors import FormatError
from opendelg.evaluation.provenance import hash_of_names
from opendelg.whole_files import replacing

VERSION = 1
_HEADER, _DESCRIPTORS = "header", "descriptors"


@dataclass(frozen=True)
class Shard:
    """What a shard file says of itself; its names and descriptors are read when they are needed."""

    path: Path
    key: str  # distinguishes it from any other that had its place
    part: str  # name of the part
    stamp: str  # of the part
    start: int  # position in the part of its first image
    num_images: int  # unreadable ones included
    failures: Mapping[int, str]  # offset from the start -> reason
    is_last: bool  # of its part
    fault: str  # what stopped the part before its end; empty if nothing did

    def __len__(self) -> int:
        """How many images have a descriptor."""
        return self.num_images - len(self.failures)

    @property
    def offsets(self) -> np.ndarray:
        """(N,) int64, offset from the start of each image that has a descriptor."""
        return np.setdiff1d(np.arange(self.num_images), list(self.failures))

    def names(self) -> list[str]:
        """The names of all its images, unreadable ones included."""
        names: list[str] = _read(self.path)[0]["names"]
        return names

    def descriptors(self) -> np.ndarray:
        """(N, D) float32.

        Raises:
            FormatError: If the file is damaged.
        """
        return _read(self.path, with_descriptors=True)[1]


def shard_path(folder: Path, part: Part, number: int) -> Path:
    """Where a shard of a part lies: parts of different folders never share a file."""
    readable = re.sub(r"[^A-Za-z0-9.-]", "_", part.name)[-40:]
    return folder / f"{readable}-{hash_of_names([part.name])[:8]}.{number:04d}.npz"


def write_shard(
    path: Path,
    part: Part,
    recipe: Recipe,
    start: int,
    names: Sequence[str],
    failures: Mapping[int, str],
    descriptors: Sequence[np.ndarray],
    is_last: bool,
    fault: str,
) -> Shard:
    """Write a shard whole or not at all; arguments as of `Shard`, descriptors (D,) each."""
    header = {
        "format": "opendelg-shard",
        "version": VERSION,
        "key": secrets.token_hex(8),
        "recipe": recipe.to_json(),
        "part": part.name,
        "stamp": part.stamp,
        "start": start,
        "names": list(names),
        "failures": {str(offset): reason for offset, reason in failures.items()},
        "is_last": is_last,
        "fault": fault,
    }
    rows = np.stack(descriptors) if descriptors else np.zeros((0, 0))
    with replacing(path) as written, written.open("wb") as file:
        np.savez(
            file,
            **{
                _HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8),
                _DESCRIPTORS: rows.astype("<f4"),
            },
        )
    return _shard(path, header)


def read_shard(path: Path, recipe: Recipe) -> Shard | None:
    """The shard in a file; None if there is none.

    Raises:
        FormatError: If it is damaged, or another recipe made it.
    """
    if not path.exists():
        return None
    header, _ = _read(path)
    differences = Recipe.from_json(header["recipe"]).differences(recipe)
    if differences:
        raise FormatError(
            "recipe must be the one that made the distractors' descriptors, got "
            f"{'; '.join(differences)} in {str(path)!r}; take another --collection"
        )
    return _shard(path, header)


def _shard(path: Path, header: dict[str, object]) -> Shard:
    values: dict[str, object] = {key: header[key] for key in ("key", "part", "stamp", "fault")}
    names, failures = header["names"], header["failures"]
    assert isinstance(names, list)
    assert isinstance(failures, dict)
    return Shard(
        path=path,
        start=int(str(header["start"])),
        num_images=len(names),
        failures={int(offset): str(reason) for offset, reason in failures.items()},
        is_last=bool(header["is_last"]),
        **{name: str(value) for name, value in values.items()},
    )


def _read(path: Path, with_descriptors: bool = False) -> tuple[dict[str, object], np.ndarray]:
    """Header, and the descriptors if they are wanted."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file[_HEADER].tobytes())
            if header["format"] != "opendelg-shard" or header["version"] != VERSION:
                raise ValueError(f"version {header['version']}")
            rows = file[_DESCRIPTORS] if with_descriptors else np.zeros((0, 0), np.float32)
            expected = len(header["names"]) - len(header["failures"])
    # What zipfile, json and numpy raise for damaged content.
    except (
        *(OSError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    ) as error:
        raise FormatError(
            f"shard must be an intact file of this version, got {str(error)!r} in {str(path)!r}; "
            "delete it, and its images are extracted again"
        ) from error
    if with_descriptors and (len(rows) != expected or rows.dtype != np.float32):
        raise FormatError(
            f"shard must have {expected} descriptors, got {len(rows)} in {str(path)!r}; delete it"
        )
    return header, rows
