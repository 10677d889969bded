"""Settings files of the official DELG code (.pbtxt), read as settings of ours (SPEC 3.5).

What is absent has the official default, which for ``use_pca`` is true.  What this project does
not do is refused rather than left out.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]

from opendelg.delf_messages import field_names, new_message
from opendelg.errors import FormatError
from opendelg.extraction import ExtractionConfig
from opendelg.weights import Weights, published_name

MAX_BYTES = 1 << 20  # of a settings file; the official ones have 500


@dataclass(frozen=True)
class DelfConfig:
    """What a settings file asks for."""

    model: str  # published name of the weights, or model_path as it is; may be empty
    extraction: ExtractionConfig
    want_local: bool
    want_global: bool
    is_tf2_exported: bool

    def require_export(self, weights: Weights) -> None:
        """Check that the weights resize as the export that the file describes.

        Raises:
            FormatError: If the file says TensorFlow 2 and the weights follow TensorFlow 1.
        """
        if self.is_tf2_exported and weights.model["resize_rule"] != "half_pixel":
            raise FormatError(
                f"is_tf2_exported must be false for {weights.name!r}, got true; its resize rule "
                f"is {weights.model['resize_rule']!r}"
            )


def read_delf_config(path: Path) -> DelfConfig:
    """Read a settings file such as r50delg_gldv2clean_config.pbtxt.

    Raises:
        FileNotFoundError: If it is absent.
        FormatError: If it is not one, or asks for what opendelg does not do.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    config = _parse(data, str(path))
    faults = _faults(config)
    if faults:
        raise FormatError(
            f"settings must be ones that opendelg follows, got {'; '.join(faults)} in {str(path)!r}"
        )
    scales = tuple(_shortest(scale) for scale in config.image_scales)
    chosen = config.delf_global_config.image_scales_ind or range(len(scales))
    local = config.delf_local_config
    try:
        extraction = ExtractionConfig(
            max_size=max(-1, config.max_image_size),
            min_size=max(-1, config.min_image_size),
            scales=scales,
            global_scales=tuple(scales[index] for index in chosen),
            max_keypoints=local.max_feature_num if config.use_local_features else 0,
            score_threshold=_shortest(local.score_threshold),
        )
    except ValueError as error:
        raise FormatError(f"settings must be valid, got {error} in {str(path)!r}") from error
    return DelfConfig(
        model=published_name(config.model_path) or config.model_path,
        extraction=extraction,
        want_local=extraction.max_keypoints > 0,
        want_global=config.use_global_features,
        is_tf2_exported=config.is_tf2_exported,
    )


def _parse(data: bytes, where: str) -> Any:
    """A DelfConfig message."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"settings file must have at most {MAX_BYTES} bytes, got {where!r}")
    try:
        return text_format.Parse(data.decode(), new_message("DelfConfig"))
    except (text_format.ParseError, UnicodeDecodeError) as error:
        unknown = re.search(r'has no field named "(\w+)"', str(error))
        nearest = difflib.get_close_matches(unknown[1], field_names(), n=1) if unknown else []
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        if unknown and nearest == [unknown[1]]:
            hint = "; it belongs in another block"
        raise FormatError(
            f"settings file must be text of a DelfConfig, got {where!r} ({error}){hint}"
        ) from error


def _faults(config: Any) -> list[str]:
    """What the file asks for and opendelg does not do, and what it must have and lacks."""
    local, of_global = config.delf_local_config, config.delf_global_config
    asked = {
        "no image_scales": not config.image_scales,
        "neither local nor global features": not (
            (config.use_local_features and local.max_feature_num) or config.use_global_features
        ),
        "use_pca true of local features": config.use_local_features and local.use_pca,
        "use_pca true of global features": config.use_global_features and of_global.use_pca,
        f"iou_threshold {local.iou_threshold:g} instead of 1": config.use_local_features
        and local.iou_threshold != 1,
        "use_square_images true": config.use_square_images,
        "use_resized_coordinates true": config.use_local_features and local.use_resized_coordinates,
    }
    faults = [fault for fault, is_asked in asked.items() if is_asked]
    wrong = [i for i in of_global.image_scales_ind if not 0 <= i < len(config.image_scales)]
    return faults + [f"image_scales_ind {index}" for index in wrong]


def _shortest(number: float) -> float:
    """A float32 as it was typed: 0.35355338, not 0.3535533845424652."""
    return float(str(np.float32(number)))
