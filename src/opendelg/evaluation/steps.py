"""Results of the steps of a long evaluation, kept so that it goes on where it was stopped.

Each step is one .npz file, written whole, in a folder named by a hash of all that its result
depends on: another model, setting or image, and another folder is used.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.whole_files import remove_parts, replacing


class Steps:
    """The steps of one evaluation."""

    def __init__(self, folder: Path, depends_on: Mapping[str, Any]) -> None:
        """Nothing is written before the first step is done; what a killed process left goes.

        Args:
            folder: Where the steps of all evaluations are.
            depends_on: JSON values that tell this evaluation from any other.
        """
        text = json.dumps(dict(depends_on), sort_keys=True, allow_nan=False)
        self._folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        remove_parts(self._folder)

    def kept(self, name: str) -> dict[str, np.ndarray] | None:
        """The result of a step; None if it is not done, or its file is damaged."""
        try:
            path = self._folder / f"{name}.npz"
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # it is made again

    def done(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The result of a step, made and kept if there is none yet."""
        result = self.kept(name)
        if result is None:
            result = make()
            with replacing(self._folder / f"{name}.npz") as part, part.open("wb") as file:
                np.savez(file, **result)  # type: ignore[arg-type]
        return result
