"""Names that ``--model`` accepts beside file paths, and where their weights lie.

The starter lies in the package.  The official models of the DELG paper are fetched once by
``delg weights download`` and lie in the cache folder from then on; nothing is fetched unasked.

Source: SPEC 6.2 (archives) and 3.4 (thresholds); tensorflow/models, research/delf.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opendelg.errors import WeightsError
from opendelg.weights.archive import is_archive
from opendelg.weights.checkpoint import Weights, read_weights

DEFAULT_MODEL = "starter"
OFFICIAL_URL = "https://storage.googleapis.com/delf"

_PACKAGE = Path(__file__).parent
_OFFICIAL_LICENCE = "none stated with the models; the code they belong to is Apache-2.0"


@dataclass(frozen=True)
class Published:
    """Weights that go by a name."""

    name: str
    description: str
    licence: str
    release: str | None = None  # folder in the official archive; None: lies in the package
    score_threshold: float | None = None  # of the official settings file; None: in the weights

    @property
    def archive(self) -> str | None:
        """File name of the official archive."""
        return None if self.release is None else f"{self.release}.tar.gz"

    @property
    def url(self) -> str | None:
        """Where the archive is to be had."""
        return None if self.archive is None else f"{OFFICIAL_URL}/{self.archive}"

    @property
    def file(self) -> Path:
        """Where the weights are, or will be once they are downloaded."""
        return self.file_in(_PACKAGE if self.release is None else cache_folder())

    def file_in(self, folder: Path) -> Path:
        """Where the weights are if they are in this folder."""
        return folder / f"{self.name}.safetensors"


PUBLISHED = {
    published.name: published
    for published in (
        Published(
            "starter",
            "ResNet-18 DELG, trained by this project on 7,000 photos",
            "Apache-2.0, as the package",
        ),
        Published(
            "r50-gldv2clean",
            "official ResNet-50 DELG, trained on Google Landmarks v2 clean",
            _OFFICIAL_LICENCE,
            "r50delg_gldv2clean_20200914",
            454.6,
        ),
        Published(
            "r101-gldv2clean",
            "official ResNet-101 DELG, trained on Google Landmarks v2 clean",
            _OFFICIAL_LICENCE,
            "r101delg_gldv2clean_20200914",
            357.48,
        ),
        Published(
            "r50-gld",
            "official ResNet-50 DELG, trained on Google Landmarks v1",
            _OFFICIAL_LICENCE,
            "r50delg_gld_20200814",
            175.0,
        ),
        Published(
            "r101-gld",
            "official ResNet-101 DELG, trained on Google Landmarks v1",
            _OFFICIAL_LICENCE,
            "r101delg_gld_20200814",
            166.1,
        ),
        Published(
            "r50-gld-20200520",
            "official ResNet-50 DELG, trained on Google Landmarks v1, first release",
            _OFFICIAL_LICENCE,
            "delg_gld_20200520",
            175.0,
        ),
    )
}


def cache_folder() -> Path:
    """Where downloads lie: $OPENDELG_CACHE, else `opendelg` in the cache folder of the user."""
    named = os.environ.get("OPENDELG_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG standard ignores relative paths.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "opendelg"


def published_name(model_path: str) -> str | None:
    """Our name of an official model, by the ``model_path`` of its settings file.

    Args:
        model_path: Ends in the release's folder, as in ``parameters/r50delg_gld_20200814``.
    """
    release = PurePosixPath(model_path).name
    return next((known.name for known in PUBLISHED.values() if known.release == release), None)


def published_as(weights: Weights) -> str | None:
    """The name of the official model that weights are; None if they are none of them.

    They are known by the release that they were imported from, which is in the file, and must keep
    its score threshold.
    """
    imported = weights.training
    name = published_name(str(imported.get("imported_from", "")))
    if name is None or imported.get("format") != "saved model":
        return None
    return name if weights.score_threshold == PUBLISHED[name].score_threshold else None


def load_weights(name_or_path: str) -> Weights:
    """Read weights by their published name or from a file.

    Raises:
        WeightsError: If it is neither, is not downloaded yet, or cannot be read.
    """
    if name_or_path in PUBLISHED:
        known = PUBLISHED[name_or_path]
        if known.file.is_file():
            return read_weights(known.file)
        if known.release is None:
            raise WeightsError(
                f"model {known.name!r} must lie in the package, got no file {str(known.file)!r}; "
                "reinstall opendelg"
            )
        raise WeightsError(
            f"model {known.name!r} must be downloaded first, got no file {str(known.file)!r}; "
            f"`delg weights download {known.name}` fetches it"
        )
    path = Path(name_or_path).expanduser()
    if path.is_dir() or (path.is_file() and is_archive(path)):
        raise WeightsError(
            f"model must be a weights file, got {name_or_path!r}; `delg weights import` makes one "
            "of a saved model or checkpoint"
        )
    if path.is_file():
        return read_weights(path)
    if "/" in name_or_path or os.sep in name_or_path or path.suffix == ".safetensors":
        raise WeightsError(
            f"model must be a file, got none at {name_or_path!r}; if it was moved, "
            "`--model FILE` gives the new place"
        )
    raise WeightsError(
        f"model must be a known name or a file, got {name_or_path!r}; {nearest_name(name_or_path)}"
    )


def nearest_name(name: str) -> str:
    """What a user may have meant who asked for weights by a name that is not known."""
    # Names of releases resemble the names of others more than their own.
    released = published_name(name.removesuffix(".tar.gz"))
    nearest = [released] if released else difflib.get_close_matches(name, PUBLISHED, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(PUBLISHED)}"
