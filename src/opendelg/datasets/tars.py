"""Images in tar files, read in place: a tar is walked once, then each image is one read.

Where the images lie is kept in an index file, valid for a tar as long as that keeps its size and
time.  A damaged tar gives the images before the damage.  Only regular members are taken, and by
position: nothing is unpacked, so the names in a tar cannot lead anywhere.
"""

import logging
import os
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.errors import ImageError
from opendelg.image import ImageLimits
from opendelg.tar_members import members
from opendelg.whole_files import replacing

logger = logging.getLogger(__name__)

INDEX_VERSION = 2
_IMAGE_NAME = re.compile(rb"(?:.*/)?([0-9a-f]{16})\.jpg", re.DOTALL)


@dataclass(frozen=True)
class TarMember:
    """One file in a tar."""

    tar: Path
    offset: int  # bytes, of its content
    size: int  # bytes

    def read(self) -> bytes:
        """Its content.

        The tar is opened for every read: cheap beside decoding, and safe in every process.

        Raises:
            ImageError: If the tar is not there, has changed, or the member is too large.
        """
        where = f" in {str(self.tar)!r} at byte {self.offset}"
        limit = ImageLimits().max_file_bytes
        if self.size > limit:
            raise ImageError(f"image must have at most {limit} bytes, got {self.size}{where}")
        try:
            with self.tar.open("rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError(f"image must be readable, got {reason.lower()!r}{where}") from error
        if len(data) != self.size:
            raise ImageError(f"image must have {self.size} bytes, got {len(data)}{where}")
        return data


@dataclass(frozen=True)
class TarContent:
    """Where the images of one tar lie."""

    name: str
    size: int  # bytes, of the tar
    time: int  # ns, of its last change
    fault: str  # what stopped the walk; empty if nothing did
    ids: np.ndarray  # (M,) uint64, in the order of the tar
    offsets: np.ndarray  # (M,) int64
    sizes: np.ndarray  # (M,) int64


def tar_contents(tars: Sequence[Path], index: Path) -> list[TarContent]:
    """Where the images of each tar lie; the index file is made or brought up to date.

    Where it cannot be written, a warning says so and the tars are walked again the next time.
    """
    known = {content.name: content for content in _read_index(index)}
    contents: dict[str, TarContent] = {}
    for tar in tars:
        status, content = tar.stat(), known.get(tar.name)
        if content and (content.size, content.time) == (status.st_size, status.st_mtime_ns):
            contents[tar.name] = content
    unknown = [tar for tar in tars if tar.name not in contents]
    if unknown:
        logger.info("finding the images in %d tars", len(unknown))
        with ThreadPoolExecutor(8) as pool:
            for number, content in enumerate(pool.map(_walk, unknown), start=1):
                contents[content.name] = content
                if number % 50 == 0:
                    logger.info("images found in %d of %d tars", number, len(unknown))
    found = [contents[tar.name] for tar in tars]
    if unknown:
        _write_index(index, found)
    return found


def _walk(tar: Path) -> TarContent:
    """Find the images of a tar."""
    found: list[tuple[int, int, int]] = []
    fault, size, time = "", 0, 0
    try:
        with tar.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            size, time = status.st_size, status.st_mtime_ns
            for member in members(file, size):
                name = None if member.flaw else _IMAGE_NAME.fullmatch(member.name)
                if name:  # one by one: what precedes an error is kept
                    found.append((int(name[1], 16), member.offset, member.size))
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or str(error)
    table = np.array(found, np.uint64).reshape(-1, 3)
    offsets, sizes = table[:, 1].astype(np.int64), table[:, 2].astype(np.int64)
    return TarContent(tar.name, size, time, fault, table[:, 0].copy(), offsets, sizes)


def _read_index(index: Path) -> list[TarContent]:
    """What an index file says; nothing if it is absent, of another version or damaged."""
    try:
        with index.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if int(file["version"]) != INDEX_VERSION:
                return []
            parts = np.split(file["images"], np.cumsum(file["counts"])[:-1])
            tars = zip(file["names"], file["sizes"], file["times"], file["faults"], strict=True)
            return [
                TarContent(
                    str(name),
                    int(size),
                    int(time),
                    str(fault),
                    part[:, 0].copy(),
                    part[:, 1].astype(np.int64),
                    part[:, 2].astype(np.int64),
                )
                for (name, size, time, fault), part in zip(tars, parts, strict=True)
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
        logger.warning("index of tars is damaged and made anew: %s", index)
        return []


def _write_index(index: Path, contents: Sequence[TarContent]) -> None:
    images = [
        np.stack([c.ids, c.offsets.astype(np.uint64), c.sizes.astype(np.uint64)], axis=1)
        for c in contents
    ]
    try:
        # Another process reads the old file or the new one, whole.
        with replacing(index) as written, written.open("wb") as file:
            np.savez(
                file,
                version=INDEX_VERSION,
                names=np.array([content.name for content in contents]),
                sizes=np.array([content.size for content in contents], np.int64),
                times=np.array([content.time for content in contents], np.int64),
                faults=np.array([content.fault for content in contents]),
                counts=np.array([len(content.ids) for content in contents], np.int64),
                images=np.concatenate(images),
            )
    except OSError as error:
        logger.warning("index of tars was not written: %s", error)
