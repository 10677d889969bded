"""Global descriptors of millions of images in a folder of shards, filled step by step.

A shard is two files, named by the position of its first image: ``000010000.npy`` holds the
descriptors of the images that could be read, ``000010000.npz`` their names, sizes and failures.
The .npz is written last and makes the shard exist; both are written whole, so whatever stops the
filling, the shards so far stay.  ``recipe.json`` says what made the descriptors.

Images are known by name: what is kept is never extracted again, also when the list of images
grows, and protocols that need some of the same images share one folder.  One process may fill a
folder at a time; the lock of the collection it lies in sees to that.
"""

import json
import tarfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from opendelg.collection import Recipe
from opendelg.errors import FormatError, ImageError, OpenDelgError
from opendelg.extraction import Extractor, extract_stream
from opendelg.features import ImageFeatures
from opendelg.image import (
    EXTENSIONS,
    DecodedImage,
    ImageLimits,
    find_images,
    read_file,
    read_image,
)
from opendelg.recipes import recipe_of
from opendelg.whole_files import remove_parts, replacing

# An image's name, and what gives the bytes of its file or raises ImageError; called in a thread.
Source = tuple[str, Callable[[], bytes]]

SHARD_IMAGES = 10_000
SHARD_SECONDS = 300.0  # a shard is written after this time too: a crash costs no more
_RECIPE_NAME = "recipe.json"
# What only local features depend on: descriptors may be mixed whatever these are.
_LOCAL_SETTINGS = frozenset({"scales", "max_keypoints", "score_threshold", "precision"})


@dataclass
class Draft:
    """The images of the next shard."""

    names: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)  # failures by their place here
    descriptors: list[np.ndarray] = field(default_factory=list)

    def add(self, name: str, result: ImageFeatures | ImageError) -> None:
        """Append an image, or what is wrong with it."""
        if isinstance(result, ImageError):
            self.reasons[len(self.names)] = str(result)
            self.sizes.append((0, 0))
        else:
            self.descriptors.append(result.global_descriptor)
            self.sizes.append(result.size)
        self.names.append(_encoded(name))


@dataclass(frozen=True)
class _Shard:
    """What is known of a shard without reading its descriptors."""

    first: int  # position of its first image
    names: np.ndarray  # (N,) bytes
    sizes: np.ndarray  # (N, 2) int32
    reasons: dict[int, str]  # failures by their place in the shard
    checksum: int  # crc32 of the descriptors

    @property
    def num_readable(self) -> int:
        return len(self.names) - len(self.reasons)


@dataclass(frozen=True)
class _Catalogue:
    """All shards but their descriptors, by position."""

    names: np.ndarray  # (P,) bytes
    sizes: np.ndarray  # (P, 2) int32
    is_readable: np.ndarray  # (P,) bool
    sorted_names: np.ndarray  # (P,) bytes
    order: np.ndarray  # (P,) int64, positions of the sorted names


class Shards:
    """Global descriptors by position: the place of an image in the order of extraction."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        """Use `Shards.open`."""
        self.folder = folder
        self.recipe = recipe
        self._shards: list[_Shard] = []
        self._joined: _Catalogue | None = None  # of the shards so far

    @classmethod
    def open(cls, folder: Path, extractor: Extractor) -> "Shards":
        """The shards in a folder, which is made if it is missing.

        Raises:
            FormatError: If another recipe made them, naming both, or a file is damaged.
        """
        shards = cls(folder, _global_recipe(extractor))
        shards._require_recipe()
        for path in sorted(folder.glob("*.npz")):
            shard = _read_shard(path)
            if shard.first != len(shards):
                raise FormatError(
                    f"shard must begin at position {len(shards)}, got {str(path)!r}; the one "
                    "before it was deleted: delete all later ones too"
                )
            shards._shards.append(shard)
        shards._remove_leftovers()
        return shards

    def __len__(self) -> int:
        """How many images are kept, failures included."""
        return self._shards[-1].first + len(self._shards[-1].names) if self._shards else 0

    def positions(self, names: Sequence[str]) -> np.ndarray:
        """Positions (N,) int64 of images by name; -1 for those that are not kept."""
        if len(self) == 0 or len(names) == 0:
            return np.full(len(names), -1, np.int64)
        kept, order = self._catalogue().sorted_names, self._catalogue().order
        wanted = np.array([_encoded(name) for name in names], np.bytes_)
        # Cut to the length of the kept ones, which would otherwise all be copied to the other.
        found = np.searchsorted(kept, wanted.astype(kept.dtype))
        found = np.minimum(found, len(kept) - 1)
        return np.where(kept[found] == wanted, order[found], -1)

    def names(self, positions: np.ndarray) -> list[str]:
        """Names of the images at positions (N,) int64."""
        return [_decoded(name) for name in self._catalogue().names[positions]]

    def sizes(self, positions: np.ndarray) -> np.ndarray:
        """(width, height) px (N, 2) int32 of originals; 0 for images that cannot be read."""
        sizes: np.ndarray = self._catalogue().sizes[positions]
        return sizes

    def is_readable(self) -> np.ndarray:
        """(P,) bool by position: which images have a descriptor."""
        return self._catalogue().is_readable

    def failures(self) -> list[tuple[int, str, str]]:
        """Position, name and reason of each image that could not be read."""
        return [
            (shard.first + place, _decoded(shard.names[place]), reason)
            for shard in self._shards
            for place, reason in shard.reasons.items()
        ]

    def blocks(
        self, rows: int, wanted: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All descriptors in order, in memory that does not grow with their number.

        Args:
            rows: Most images in a block.
            wanted: (P,) bool by position, the images to give; None: all that can be read.

        Yields:
            Positions (B,) int64, ascending, and descriptors (B, D) float32.

        Raises:
            FormatError: If a shard is damaged.
        """
        readable = self.is_readable()
        given = readable if wanted is None else readable & wanted
        for shard in self._shards:
            stop = shard.first + len(shard.names)
            if not given[shard.first : stop].any():
                continue
            places = np.flatnonzero(readable[shard.first : stop]) + shard.first
            descriptors = self._read_whole(shard)
            is_given = given[places]
            if not is_given.all():
                places, descriptors = places[is_given], descriptors[is_given]
            for start in range(0, len(places), rows):
                yield places[start : start + rows], descriptors[start : start + rows]

    def descriptors(self, positions: np.ndarray) -> np.ndarray:
        """Descriptors (N, D) float32 of the images at positions (N,) int64, in any order.

        Raises:
            ValueError: If an image could not be read, or there is no such position.
            FormatError: If a shard is damaged.
        """
        positions = np.asarray(positions, np.int64)
        readable = self.is_readable()
        if np.any((positions < 0) | (positions >= len(self))) or not readable[positions].all():
            raise ValueError("positions must be those of images that could be read")
        before = np.cumsum(readable) - readable  # images that can be read before each
        firsts = np.array([shard.first for shard in self._shards], np.int64)
        owners = np.searchsorted(firsts, positions, side="right") - 1
        found: np.ndarray | None = None
        for number in np.unique(owners).tolist():
            shard, own = self._shards[number], owners == number
            table = self._mapped(shard)
            if found is None:
                found = np.empty((len(positions), table.shape[1]), np.float32)
            found[own] = table[before[positions[own]] - before[shard.first]]
        return np.zeros((0, 0), np.float32) if found is None else found

    def append(self, draft: Draft) -> None:
        """Write a shard.

        Raises:
            ValueError: If a name is kept already, or comes twice.
            OSError: If it cannot be written.
        """
        names = np.array(draft.names, np.bytes_)
        is_kept = self.positions([_decoded(name) for name in names]) >= 0
        if is_kept.any() or len(np.unique(names)) < len(names):
            raise ValueError("names must be distinct")
        size = len(draft.descriptors[0]) if draft.descriptors else 0
        table = np.array(draft.descriptors, "<f4").reshape(len(draft.descriptors), size)
        shard = _Shard(
            len(self),
            names,
            np.array(draft.sizes, np.int32).reshape(-1, 2),
            dict(draft.reasons),
            zlib.crc32(table.tobytes()),
        )
        with replacing(self._path(shard, ".npy")) as part, part.open("wb") as file:
            np.lib.format.write_array(file, table, allow_pickle=False)
        with replacing(self._path(shard, ".npz")) as part, part.open("wb") as file:
            np.savez(
                file,
                first=shard.first,
                names=names,
                sizes=shard.sizes,
                failed=np.array(list(shard.reasons), np.int64),
                reasons=np.frombuffer(json.dumps(list(shard.reasons.values())).encode(), np.uint8),
                checksum=np.uint32(shard.checksum),
            )
        self._shards.append(shard)
        self._joined = None

    def _catalogue(self) -> _Catalogue:
        if self._joined is None:
            names = np.concatenate([np.zeros(0, "S1"), *(shard.names for shard in self._shards)])
            sizes = [np.zeros((0, 2), np.int32), *(shard.sizes for shard in self._shards)]
            readable = np.ones(len(names), bool)
            readable[[position for position, _, _ in self.failures()]] = False
            order = np.argsort(names, kind="stable")
            self._joined = _Catalogue(names, np.concatenate(sizes), readable, names[order], order)
        return self._joined

    def _require_recipe(self) -> None:
        path = self.folder / _RECIPE_NAME
        try:
            kept = Recipe.from_json(path.read_text(errors="replace"))
        except FileNotFoundError:
            if any(self.folder.glob("*.npz")):
                raise FormatError(
                    f"shards must have a recipe, got no {_RECIPE_NAME} in {str(self.folder)!r}"
                ) from None
            with replacing(path) as part:
                part.write_text(self.recipe.to_json())
            return
        differences = kept.differences(self.recipe)
        if differences:
            raise FormatError(
                f"recipe must be the one that made the shards, got {'; '.join(differences)} in "
                f"{str(self.folder)!r}; use their weights and settings, or another folder"
            )

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left: half a file, and descriptors of no shard."""
        remove_parts(self.folder)
        for path in self.folder.glob("*.npy"):
            if not path.with_suffix(".npz").exists():
                path.unlink()

    def _path(self, shard: _Shard, suffix: str) -> Path:
        return self.folder / f"{shard.first:09}{suffix}"

    def _mapped(self, shard: _Shard) -> np.ndarray:
        """Descriptors (R, D) float32 of a shard, read from disk where they are looked at."""
        path = self._path(shard, ".npy")
        if shard.num_readable == 0:
            return np.zeros((0, 0), np.float32)
        try:
            table: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
            raise _damaged(path, str(error)) from error
        if table.ndim != 2 or len(table) != shard.num_readable or table.dtype != np.float32:
            raise _damaged(path, f"shape {table.shape} of {table.dtype}")
        return table

    def _read_whole(self, shard: _Shard) -> np.ndarray:
        """All descriptors of a shard, compared with their checksum."""
        table = np.array(self._mapped(shard))
        if zlib.crc32(table.tobytes()) != shard.checksum:
            raise _damaged(self._path(shard, ".npy"), "another checksum")
        return table


def fill_shards(
    shards: Shards,
    extractor: Extractor,
    sources: Iterable[Source],
    decode_threads: int = 2,
    batch_size: int = 1,
    progress: Callable[[str], None] | None = None,
    shard_images: int = SHARD_IMAGES,
    shard_seconds: float = SHARD_SECONDS,
) -> None:
    """Extract the images that are not kept yet.

    Args:
        shards: Opened with the same extractor.
        extractor: Used by nobody else meanwhile.
        sources: Images by name, read lazily; of two with one name the first counts.
        decode_threads: Threads that read and decode beside the network.
        batch_size: Images that the network takes at a time.
        progress: Called with the name of each image that is done; not for those kept before.
        shard_images: Most images of a shard.
        shard_seconds: Longest time that images wait to be written.
    """
    draft_size = extractor.config.draft_size

    def load(source: Source) -> DecodedImage:
        name, read = source
        return read_image(read(), draft_size=draft_size, name=name)

    waiting: set[str] = set()  # given to the network, not in a shard

    def new() -> Iterator[Source]:
        for name, read in sources:
            if name not in waiting and shards.positions([name])[0] < 0:
                waiting.add(name)
                yield name, read

    def write(draft: Draft) -> None:
        shards.append(draft)
        waiting.difference_update(map(_decoded, draft.names))

    stream = extract_stream(new(), extractor, load, decode_threads, batch_size, want_local=False)
    draft, started = Draft(), time.monotonic()
    try:
        for (name, _), result in stream:
            draft.add(name, result)
            if progress is not None:
                progress(name)
            if len(draft.names) == shard_images or time.monotonic() - started > shard_seconds:
                full, draft = draft, Draft()
                write(full)
                started = time.monotonic()
    finally:
        stream.close()
        if draft.names:  # after Ctrl-C too
            write(draft)


def folder_sources(folder: Path) -> Iterator[Source]:
    """Every image below a folder, by its path there, in the order of these."""
    if not folder.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {str(folder)!r}")
    for path in find_images([folder]):
        yield path.relative_to(folder).as_posix(), partial(read_file, path)


def tar_sources(
    tars: Sequence[Path], tell: Callable[[int], None] | None = None
) -> Iterator[Source]:
    """The images in .tar and .tar.gz files, in their order there; named below their tar.

    The tars are read from front to back, one image at a time.

    Args:
        tars: Files with distinct names.
        tell: Called with the bytes read of the current tar, as it is on disk.

    Raises:
        OpenDelgError: If a tar cannot be read, ends too early, or names a place above it.
    """
    for path in tars:
        try:
            with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
                for member in tar:
                    if not member.isreg() or Path(member.name).suffix.lower() not in EXTENSIONS:
                        continue
                    if ".." in Path(member.name).parts:
                        raise OpenDelgError(
                            f"images must lie below their tar, got {member.name!r} in {str(path)!r}"
                        )
                    yield f"{path.name}/{member.name}", _reader(tar, member)
                    if tell is not None:
                        tell(raw.tell())
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise OpenDelgError(
                f"tar must be readable, got {str(error) or type(error).__name__!r} in {str(path)!r}"
            ) from error


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    """What gives the bytes of a file in a tar, which are read now, or raises ImageError."""
    limit = ImageLimits().max_file_bytes
    content = None if member.size > limit else tar.extractfile(member)
    if content is None:
        return partial(_refuse, member.name, member.size, limit)
    return partial(bytes, content.read())


def _refuse(name: str, size: int, limit: int) -> bytes:
    raise ImageError(f"image must have at most {limit} bytes, got {size} in {name!r}")


def _global_recipe(extractor: Extractor) -> Recipe:
    """What global descriptors depend on."""
    recipe = recipe_of(extractor)
    settings = {k: v for k, v in recipe.extraction.items() if k not in _LOCAL_SETTINGS}
    return replace(recipe, extraction=settings)


def _read_shard(path: Path) -> _Shard:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            reasons = json.loads(file["reasons"].tobytes())
            failed = file["failed"].tolist()
            names, sizes = file["names"], file["sizes"]
            if names.ndim != 1 or names.dtype.kind != "S" or sizes.shape != (len(names), 2):
                raise ValueError(f"names and sizes of shapes {names.shape} and {sizes.shape}")
            return _Shard(
                int(file["first"]),
                names,
                sizes,
                dict(zip(failed, reasons, strict=True)),
                int(file["checksum"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> FormatError:
    return FormatError(
        f"shard must be whole, got {reason!r} in {str(path)!r}; delete it and all later ones, "
        "they are made anew"
    )


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
