"""A folder of feature files in one of the formats: what `delg extract` writes, and resumes.

A file of .npz names its own recipe.  The other formats cannot, so the recipe lies beside them in
``recipe.json``, and a folder holds features of one recipe only.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from filelock import FileLock

from opendelg.collection.recipe import Recipe
from opendelg.errors import FormatError, OpenDelgError
from opendelg.feature_files.delg import write_delg_global, write_delg_local
from opendelg.feature_files.hloc import (
    hloc_images,
    require_h5py,
    write_hloc_global,
    write_hloc_local,
)
from opendelg.feature_files.kapture import (
    NAME,
    kapture_path,
    write_kapture_global,
    write_kapture_local,
)
from opendelg.feature_files.npz import is_current, read_npz, write_npz
from opendelg.feature_files.paths import feature_paths, require_short_names
from opendelg.feature_files.writing import replacing
from opendelg.features import ImageFeatures

Format = Literal["npz", "delg", "h5", "kapture"]
RECIPE_FILE = "recipe.json"
HLOC_LOCAL, HLOC_GLOBAL = "features.h5", "global.h5"
HLOC_WAITING = ".waiting"  # folder of what is not in the HDF5 files yet
HLOC_LOCK = ".lock"


class FeatureFolder(Protocol):
    """Where features of images go."""

    images: list[Path]  # all that the folder is for

    def claim(self, recipe: Recipe) -> None:
        """Begin to write: keep the recipe, or refuse if the folder has another one.

        Raises:
            FormatError: Naming both recipes.
        """

    def is_current(self, image: Path) -> bool:
        """Whether features of this image are there that the recipe made, and no older than it."""

    def write(self, image: Path, features: ImageFeatures) -> None:
        """Keep the features of an image, whole or not at all, and over a crash."""

    def finish(self) -> None:
        """End a run; what was kept is in the files of the format then."""


def open_folder(
    format: Format,
    out: Path,
    images: Iterable[Path],
    given: Sequence[Path],
    want_local: bool = True,
    want_global: bool = True,
) -> FeatureFolder:
    """The folder ``out`` for features of images in a format; nothing is written yet.

    Args:
        format: Kind of the files.
        out: The folder; need not exist.
        images: All images of the run.
        given: The folders they were found in: files lie below ``out`` as images below these.
        want_local: Whether local features are kept.
        want_global: Whether global descriptors are kept; .npz files always have both.

    Raises:
        OpenDelgError: If two images would get one file, a name is too long, or the format needs
            what is not there.
    """
    if out.exists() and not out.is_dir():
        raise OpenDelgError(f"out must be a folder, got {str(out)!r}; choose another one")
    match format:
        case "npz":
            paths = feature_paths(images, given, out)
            require_short_names(paths)
            return _NpzFolder(paths)
        case "delg":
            stems = feature_paths(images, given, out, suffix="", keep_extension=False)
            require_short_names(stems, ".delg_global")
            wanted = [".delg_global"] * want_global + [".delg_local"] * want_local
            return _DelgFolder(out, stems, wanted)
        case "h5":
            names = feature_paths(images, given, Path(), suffix="")
            require_short_names(names, ".npz")
            return _HlocFolder(out, names, want_local, want_global)
        case "kapture":
            names = feature_paths(images, given, Path(), suffix="")
            require_short_names(names, ".gfeat")
            return _KaptureFolder(out, names, want_local, want_global)
    raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")


class _NpzFolder:
    def __init__(self, paths: dict[Path, Path]) -> None:
        self.images = list(paths)
        self._paths = paths
        self._recipe = ""

    def claim(self, recipe: Recipe) -> None:
        self._recipe = recipe.to_json()

    def is_current(self, image: Path) -> bool:
        return is_current(self._paths[image], image, self._recipe)

    def write(self, image: Path, features: ImageFeatures) -> None:
        write_npz(self._paths[image], features, self._recipe)

    def finish(self) -> None:
        pass


class _DelgFolder:
    def __init__(self, out: Path, stems: dict[Path, Path], suffixes: Sequence[str]) -> None:
        self.images = list(stems)
        self._out = out
        # Not with_suffix: a stem may have dots.
        self._files = {
            image: {suffix: stem.with_name(stem.name + suffix) for suffix in suffixes}
            for image, stem in stems.items()
        }

    def claim(self, recipe: Recipe) -> None:
        _claim(self._out, recipe, (path for f in self._files.values() for path in f.values()))

    def is_current(self, image: Path) -> bool:
        return _are_newer(self._files[image].values(), image)

    def write(self, image: Path, features: ImageFeatures) -> None:
        files = self._files[image]
        if ".delg_global" in files:
            write_delg_global(files[".delg_global"], features.global_descriptor)
        if ".delg_local" in files:
            write_delg_local(files[".delg_local"], features.local)

    def finish(self) -> None:
        pass


class _KaptureFolder:
    def __init__(
        self, out: Path, names: dict[Path, Path], want_local: bool, want_global: bool
    ) -> None:
        self.images = list(names)
        self._out = out
        self._names = {image: name.as_posix() for image, name in names.items()}
        self._want_local, self._want_global = want_local, want_global

    def claim(self, recipe: Recipe) -> None:
        _claim(self._out, recipe, (path for image in self.images for path in self._files(image)))

    def is_current(self, image: Path) -> bool:
        return _are_newer(self._files(image), image)

    def write(self, image: Path, features: ImageFeatures) -> None:
        if self._want_local:
            write_kapture_local(self._out, self._names[image], features.local)
        if self._want_global:
            write_kapture_global(self._out, self._names[image], features.global_descriptor)

    def finish(self) -> None:
        pass

    def _files(self, image: Path) -> list[Path]:
        suffixes = [".kpt", ".desc"] * self._want_local + [".gfeat"] * self._want_global
        return [kapture_path(self._out, suffix, NAME, self._names[image]) for suffix in suffixes]


class _HlocFolder:
    """HDF5 files, written at the end of a run; until then an .npz per image waits beside them.

    HDF5 loses a file whose writer is killed.
    """

    def __init__(
        self, out: Path, names: dict[Path, Path], want_local: bool, want_global: bool
    ) -> None:
        require_h5py()
        self.images = list(names)
        self._names = {image: _utf8(name) for image, name in names.items()}
        self._out, self._waiting = out, out / HLOC_WAITING
        self._want_local, self._want_global = want_local, want_global
        self._recipe = ""
        self._stored: list[dict[str, int | None]] = []  # images of each file, with their times

    def claim(self, recipe: Recipe) -> None:
        files = [self._out / HLOC_LOCAL] * self._want_local
        files += [self._out / HLOC_GLOBAL] * self._want_global
        _claim(self._out, recipe, files)
        self._recipe = recipe.to_json()
        self._stored = [hloc_images(path) if path.exists() else {} for path in files]

    def is_current(self, image: Path) -> bool:
        return self._is_stored(image) or is_current(self._waiting_path(image), image, self._recipe)

    def write(self, image: Path, features: ImageFeatures) -> None:
        write_npz(self._waiting_path(image), features, self._recipe)

    def finish(self) -> None:
        if not self._waiting.exists():
            return
        # Of two runs at once, the later would replace what the other one stores.
        with FileLock(self._out / HLOC_LOCK):
            self._store(
                {
                    path.relative_to(self._waiting).as_posix().removesuffix(".npz"): path
                    for path in sorted(self._waiting.rglob("*.npz"))
                }
            )
        for folder in sorted(self._waiting.rglob("*"), reverse=True):
            _remove_if_empty(folder)
        _remove_if_empty(self._waiting)

    def _store(self, paths: Mapping[str, Path]) -> None:
        """Move what waits into the files, and no more: another run may go on to write."""
        times = {name: path.stat().st_mtime_ns for name, path in paths.items()}
        # Read anew for each file: the features of all images need not fit into memory.
        if self._want_local:
            write_hloc_local(self._out / HLOC_LOCAL, _read_all(paths), times)
        if self._want_global:
            write_hloc_global(self._out / HLOC_GLOBAL, _read_all(paths), times)
        for path in paths.values():
            path.unlink()

    def _is_stored(self, image: Path) -> bool:
        try:
            changed_ns = image.stat().st_mtime_ns
        except OSError:
            return False
        times = [images.get(self._names[image]) for images in self._stored]
        return all(time is not None and time >= changed_ns for time in times)

    def _waiting_path(self, image: Path) -> Path:
        return self._waiting / f"{self._names[image]}.npz"


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read_all(paths: Mapping[str, Path]) -> Iterator[tuple[str, ImageFeatures]]:
    return ((name, read_npz(path)[0]) for name, path in paths.items())


def _claim(out: Path, recipe: Recipe, results: Iterable[Path]) -> None:
    """Write the recipe into a new folder, or compare it with the one that is there."""
    path = out / RECIPE_FILE
    if not path.exists():
        stranger = next((result for result in results if result.exists()), None)
        if stranger is not None:
            raise FormatError(
                f"features must lie beside the recipe that made them, got {str(stranger)!r} "
                f"without {RECIPE_FILE!r}; write into another folder"
            )
        with replacing(path) as part:
            part.write_text(recipe.to_json() + "\n")
        return
    try:
        stored = Recipe.from_json(path.read_text("utf-8"))
    except (FormatError, UnicodeDecodeError) as error:
        raise FormatError(
            f"recipe must be one that `delg extract` wrote, got {str(path)!r} ({error})"
        ) from error
    differences = stored.differences(recipe)
    if differences:
        raise FormatError(
            f"recipe must be the one that made the features, got {'; '.join(differences)} "
            f"in {str(out)!r}; write into another folder"
        )


def _are_newer(files: Iterable[Path], image: Path) -> bool:
    """Whether all files exist and none is older than the image."""
    try:
        changed_ns = image.stat().st_mtime_ns
        return all(file.stat().st_mtime_ns >= changed_ns for file in files)
    except OSError:
        return False


def _utf8(name: Path) -> str:
    """A name as HDF5 takes it."""
    try:
        name.as_posix().encode()
    except UnicodeEncodeError as error:
        raise OpenDelgError(
            f"image must have a name in UTF-8, got {str(name)!r}; rename it, or use another format"
        ) from error
    return name.as_posix()
