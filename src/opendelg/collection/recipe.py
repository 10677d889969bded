"""The recipe of a collection: what made its features, and whether two of them may be mixed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opendelg.errors import FormatError


@dataclass(frozen=True)
class Recipe:
    """Weights and settings that made the features; all values must be JSON values or tuples."""

    weights_name: str
    weights_sha256: str  # hex digest of the weights file
    extraction: Mapping[str, Any]  # extraction settings
    model: Mapping[str, Any]  # model settings

    def to_json(self) -> str:
        """The recipe as JSON with sorted keys: equal recipes give equal text."""
        values = {
            "weights_name": self.weights_name,
            "weights_sha256": self.weights_sha256,
            "extraction": dict(self.extraction),
            "model": dict(self.model),
        }
        return json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that ``to_json`` wrote; tuples have become lists.

        Raises:
            FormatError: If the text is not a recipe.
        """
        try:
            values = json.loads(text)
            return cls(
                weights_name=values["weights_name"],
                weights_sha256=values["weights_sha256"],
                extraction=dict(values["extraction"]),
                model=dict(values["model"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"recipe must be valid, got {text[:80]!r}") from error

    def differences(self, other: "Recipe") -> list[str]:
        """What `other` does differently, one line per setting; empty if the features may be mixed.

        Weights are compared by their checksum, so one file under two names is the same.
        """
        lines = []
        if self.weights_sha256 != other.weights_sha256:
            lines.append(f"weights {other._weights()} instead of {self._weights()}")
        ours, theirs = (json.loads(recipe.to_json()) for recipe in (self, other))
        for stage in ("extraction", "model"):
            lines += [f"{stage}.{line}" for line in _differences(ours[stage], theirs[stage])]
        return lines

    def _weights(self) -> str:
        return f"{self.weights_name!r} (sha256 {self.weights_sha256[:12]})"


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for key in sorted(ours.keys() | theirs.keys()):
        our, their = ours.get(key), theirs.get(key)
        if isinstance(our, dict) and isinstance(their, dict):
            yield from (f"{key}.{line}" for line in _differences(our, their))
        elif key not in ours:
            yield f"{key} {their!r} instead of none"
        elif key not in theirs:
            yield f"{key} none instead of {our!r}"
        elif our != their:
            yield f"{key} {their!r} instead of {our!r}"
