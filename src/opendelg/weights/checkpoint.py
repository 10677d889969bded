"""The weights format: one safetensors file with the network's settings in its header.

The header's ``opendelg`` entry is JSON: format version, model settings, score threshold, the
coefficients of the probability ``same``, and what is known of the training.  Convolutions are
stored as float16 or, where they must equal another program's, as float32; vectors (biases, batch
norms) always as float32.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from opendelg.errors import WeightsError
from opendelg.same import SameModel
from opendelg.settings import settings_as_dict
from opendelg.whole_files import replacing

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Weights:
    """Weights as read from a file, before they become a network."""

    name: str
    path: Path
    sha256: str  # of the file, hexadecimal
    model: dict[str, Any]  # fields of ModelConfig
    state: dict[str, np.ndarray]  # tensors by torch name, as stored
    # Attention below which a cell is no local feature (SPEC 3.4); 0 keeps all.
    score_threshold: float
    same: SameModel | None
    training: dict[str, Any]  # data, time, steps: for people


def write_weights(
    path: Path,
    name: str,
    state: Mapping[str, np.ndarray],
    model: Any,
    score_threshold: float,
    same: SameModel | None = None,
    training: Mapping[str, Any] | None = None,
    precision: Literal["float16", "float32"] = "float16",
) -> None:
    """Write a weights file; ``model`` is a ModelConfig or the dict of one.

    Raises:
        WeightsError: If a tensor or the threshold is not finite, in float16 where it is stored so.
        OSError: If the file cannot be written.
    """
    if not math.isfinite(score_threshold):
        raise WeightsError(f"score_threshold must be finite, got {score_threshold}")
    header = {
        "version": FORMAT_VERSION,
        "name": name,
        "model": model if isinstance(model, dict) else settings_as_dict(model),
        "score_threshold": float(score_threshold),
        "same": None if same is None else settings_as_dict(same),
        "training": dict(training or {}),
    }
    with np.errstate(over="ignore"):  # told below, with names
        tensors = {
            key: np.ascontiguousarray(array, precision if array.ndim > 1 else np.float32)
            for key, array in sorted(state.items())
            if not key.endswith("num_batches_tracked")
        }
    broken = [key for key, array in tensors.items() if not np.isfinite(array).all()]
    if broken:
        raise WeightsError(f"weights must be finite in {precision}, got overflow in {broken}")
    if path.is_dir():
        raise WeightsError(f"weights must be written to a file, got the folder {str(path)!r}")
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata={"opendelg": json.dumps(header, sort_keys=True)})
            part.chmod(0o644)
    except SafetensorError as error:
        raise OSError(f"{error}: {path}") from error


def read_weights(path: Path) -> Weights:
    """Read a weights file.

    Raises:
        FileNotFoundError: If it is absent.
        WeightsError: If it is no safetensors file of this project, of a newer version, or if
            a number in it is not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights must be a file, got {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"weights must be a safetensors file, got {str(path)!r} ({error})"
        ) from error
    try:
        header = json.loads(metadata["opendelg"])
        version = header["version"]
        if not isinstance(version, int):
            raise TypeError(f"version must be a whole number, got {version!r}")
        if version > FORMAT_VERSION:
            raise WeightsError(
                f"weights version must be at most {FORMAT_VERSION}, got {version} in "
                f"{str(path)!r}; update opendelg"
            )
        weights = Weights(
            name=str(header["name"]),
            path=path,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            model=_section(header, "model"),
            state=state,
            score_threshold=_number(header["score_threshold"]),
            same=None
            if header["same"] is None
            else SameModel(**_numbers(_section(header, "same"))),
            training=_section(header, "training"),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"weights must have an opendelg header, got {str(path)!r}; "
            f"only files that opendelg wrote can be read ({error})"
        ) from error
    broken = [key for key, array in state.items() if not np.isfinite(array).all()]
    if broken:
        raise WeightsError(
            f"weights must be finite, got other numbers in {broken} of {str(path)!r}"
        )
    return weights


def _section(header: Any, name: str) -> dict[str, Any]:
    """A part of the header that has names of its own."""
    if not isinstance(header[name], dict):
        raise TypeError(f"{name} must be an object, got {header[name]!r}")
    return dict(header[name])


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> float:
    """A finite number of the header."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"number must be finite, got {value!r}")
    return float(value)
