"""What made a run: versions, weights and settings, so that figures can be compared and repeated."""

import hashlib
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from opendelg.extraction import Extractor
from opendelg.recipes import recipe_of
from opendelg.search import SearchConfig, settings_for
from opendelg.settings import settings_as_dict

# Whatever can change a figure.
LIBRARIES = (
    *("opendelg", "numpy", "pillow", "opencv-python-headless", "onnxruntime", "torch"),
    "faiss-cpu",
)


def provenance(
    extractor: Extractor, config: SearchConfig, dataset: dict[str, Any]
) -> dict[str, Any]:
    """What made a run, as plain values.

    Args:
        extractor: Network and settings.
        config: How the database was searched.
        dataset: Names, counts and hashes of the data.
    """
    recipe = recipe_of(extractor)
    searched = settings_as_dict(config)
    searched["verification"] = settings_as_dict(settings_for(extractor.config, config.verification))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"name": recipe.weights_name, "sha256": recipe.weights_sha256},
        "extraction": recipe.extraction,
        "search": searched,
        "dataset": dataset,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def hash_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_names(names: Iterable[str]) -> str:
    """Hex SHA-256 of names in their order."""
    total = hashlib.sha256()
    for name in names:
        total.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # torch and onnxruntime can do without each other
            continue
    return found
