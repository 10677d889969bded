"""Saved runs: the rankings of a protocol with all that is needed to score them again.

A run file is a zip of `run.json` and one .npy file per array.  It holds ids, similarities and
inliers, the ground truth, and what made them; no image and no descriptor.
"""

import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.errors import FormatError
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.scorable import require_scorable
from opendelg.whole_files import replacing

VERSION = 1
MAX_BYTES = 1 << 32  # of all members: a million queries with 100 results each have 2.4 GB
_HEADER = "run.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: equal runs, equal bytes
_KEYS = {"format", "version", "protocol", "num_database", "notes", "about", "truth", "stages"} | {
    *("extra", "queries", "names")
}
_KINDS = {"ids": "i8", "positions": "i8", "similarities": "f4", "num_inliers": "i4"}


@dataclass(frozen=True)
class Run:
    """Rankings of all queries of a protocol, by stage, and the truth that they are held against."""

    protocol: str
    queries: tuple[str, ...]  # names
    names: Mapping[int, str]  # of the database images that are ranked or judged, by id
    num_database: int
    truth: Mapping[str, tuple[np.ndarray, ...]]  # label -> Q arrays (P,) int64, see LANDMARKS
    stages: Mapping[str, tuple[Ranking, ...]]  # stage -> Q rankings
    about: Mapping[str, Any]  # from `provenance`
    notes: tuple[str, ...] = ()  # what a reader of the figures must know: subset, not comparable
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)  # what one protocol needs besides

    def __post_init__(self) -> None:
        for kind, lists in (("truth", self.truth), ("stages", self.stages)):
            for label, one_each in lists.items():
                if len(one_each) != len(self.queries):
                    raise ValueError(
                        f"{kind} must have one entry per query, got {len(one_each)} for "
                        f"{len(self.queries)} in {label!r}"
                    )


def mentioned_ids(
    truth: Mapping[str, Sequence[np.ndarray]], stages: Mapping[str, Sequence[Ranking]]
) -> np.ndarray:
    """Ids (M,) int64, ascending, of the images that a run has to name."""
    judged = [ids for lists in truth.values() for ids in lists]
    ranked = [ranking.ids for rankings in stages.values() for ranking in rankings]
    return np.unique(np.concatenate([*judged, *ranked, np.zeros(0, np.int64)])).astype(np.int64)


def write_run(path: Path, run: Run) -> None:
    """Write a run file whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    for label, lists in run.truth.items():
        arrays |= _flattened(f"truth/{label}", {"ids": lists})
    for stage, rankings in run.stages.items():
        columns = {name: [getattr(r, name) for r in rankings] for name in _KINDS}
        arrays |= _flattened(f"stages/{stage}", columns)
    arrays |= {f"extra/{name}": array for name, array in run.extra.items()}
    header = {
        "format": "opendelg-run",
        "version": VERSION,
        "protocol": run.protocol,
        "num_database": run.num_database,
        "notes": list(run.notes),
        "about": dict(run.about),
        "truth": list(run.truth),
        "stages": list(run.stages),
        "extra": list(run.extra),
        "queries": list(run.queries),
        "names": {str(image_id): name for image_id, name in run.names.items()},
    }
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        _add(file, _HEADER, json.dumps(header, indent=1).encode())
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            _add(file, f"{name}.npy", content.getvalue())


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        FileNotFoundError: If there is none.
        FormatError: If it is no run file, of another version, damaged, or cannot be scored.
    """
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(member.file_size for member in file.infolist())
            if size > MAX_BYTES:
                raise FormatError(
                    f"run must have at most {MAX_BYTES} bytes, got {size} in {str(path)!r}"
                )
            run = _read(file, path)
        require_scorable(run)
        return run
    except FileNotFoundError:
        raise FileNotFoundError(f"run must be an existing file, got {str(path)!r}") from None
    # What zipfile, json and numpy raise for damaged content.
    except (
        *(zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, EOFError),
        *(IndexError, OverflowError, RuntimeError, NotImplementedError, MemoryError, OSError),
        *(RecursionError, zlib.error, SyntaxError, tokenize.TokenError),
    ) as error:
        raise FormatError(
            f"run must be a whole file that `--save-run` wrote, got {str(error) or type(error)} "
            f"in {str(path)!r}; copy it again, or evaluate again"
        ) from error


def _read(file: zipfile.ZipFile, path: Path) -> Run:
    header = json.loads(file.read(_HEADER))
    absent = sorted(_KEYS - header.keys())
    if absent:
        raise ValueError(f"no {', '.join(absent)} in {_HEADER}")
    if header["format"] != "opendelg-run":
        raise ValueError(f"format {header['format']!r}")
    if header["version"] != VERSION:
        raise FormatError(
            f"run must be of version {VERSION}, got {header['version']!r} in {str(path)!r}; "
            "it was written by another version of opendelg"
        )
    count = len(header["queries"])
    stages = {}
    for stage in header["stages"]:
        columns = [_split(file, f"stages/{stage}", name, count) for name in _KINDS]
        stages[stage] = tuple(Ranking(*row) for row in zip(*columns, strict=True))
    return Run(
        protocol=str(header["protocol"]),
        queries=tuple(map(str, header["queries"])),
        names={int(image_id): str(name) for image_id, name in header["names"].items()},
        num_database=int(header["num_database"]),
        truth={
            label: tuple(_split(file, f"truth/{label}", "ids", count)) for label in header["truth"]
        },
        stages=stages,
        about=dict(header["about"]),
        notes=tuple(map(str, header["notes"])),
        extra={name: _array(file, f"extra/{name}") for name in header["extra"]},
    )


def _flattened(prefix: str, columns: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """One array per column over all queries, and how many entries each query has."""
    counts = [len(values) for values in next(iter(columns.values()))]
    flat = {
        f"{prefix}/{name}": np.concatenate([*values, np.zeros(0, _KINDS[name])]).astype(
            f"<{_KINDS[name]}"
        )
        for name, values in columns.items()
    }
    return {f"{prefix}/counts": np.array(counts, "<i8"), **flat}


def _split(file: zipfile.ZipFile, prefix: str, name: str, count: int) -> list[np.ndarray]:
    counts, values = _array(file, f"{prefix}/counts"), _array(file, f"{prefix}/{name}")
    if counts.dtype != np.int64 or values.dtype != np.dtype(_KINDS[name]):
        raise ValueError(f"array {prefix}/{name} of type {values.dtype}")
    if counts.ndim != 1 or values.ndim != 1:
        raise ValueError(f"array {prefix}/{name} of shape {values.shape}")
    if len(counts) != count or counts.min(initial=0) < 0 or counts.sum() != len(values):
        raise ValueError(f"array {prefix}/{name} of {len(values)} entries")
    return np.split(values, np.cumsum(counts)[:-1]) if count else []


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    with file.open(f"{name}.npy") as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _LONG_AGO)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    file.writestr(member, content)
