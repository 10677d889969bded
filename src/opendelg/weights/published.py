"""Names that ``--model`` accepts beside file paths."""

import difflib
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
        return read_weights(PUBLISHED[name_or_path].file)
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return read_weights(path)
    nearest = difflib.get_close_matches(name_or_path, PUBLISHED, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(PUBLISHED)}"
    raise WeightsError(f"model must be a known name or a file, got {name_or_path!r}; {hint}")
