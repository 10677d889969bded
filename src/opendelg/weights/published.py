"""Names that ``--model`` accepts beside file paths."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from opendelg.errors import WeightsError
from opendelg.weights.checkpoint import Weights, read_weights

DEFAULT_MODEL = "starter"


@dataclass(frozen=True)
class Published:
    """Weights that go by a name."""

    file: Path
    description: str


PUBLISHED = {
    "starter": Published(
        Path(__file__).parent / "starter.safetensors",
        "ResNet-18 DELG, trained by this project on 7,000 photos; in the package",
    ),
}


def load_weights(name_or_path: str) -> Weights:
    """Read weights by their published name or from a file.

    Raises:
        WeightsError: If it is neither, or the file cannot be read.
    """
    if name_or_path in PUBLISHED:
        file = PUBLISHED[name_or_path].file
        if not file.is_file():
            raise WeightsError(
                f"model {name_or_path!r} must lie in the package, got no file {str(file)!r}; "
                "reinstall opendelg"
            )
        return read_weights(file)
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return read_weights(path)
    if "/" in name_or_path or os.sep in name_or_path or path.suffix == ".safetensors":
        raise WeightsError(
            f"model must be a file, got none at {name_or_path!r}; if it was moved, "
            "`--model FILE` gives the new place"
        )
    nearest = difflib.get_close_matches(name_or_path, PUBLISHED, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(PUBLISHED)}"
    raise WeightsError(f"model must be a known name or a file, got {name_or_path!r}; {hint}")
