"""Options that several commands share, and what they open."""

import json
import math
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from opendelg.errors import OpenDelgError

if TYPE_CHECKING:
    from opendelg.collection import Collection
    from opendelg.delf_config import DelfConfig
    from opendelg.extraction import Box, ExtractionConfig, Extractor
    from opendelg.runtime import Architecture

T = TypeVar("T")

ProfileName = Literal["fast", "balanced", "accurate", "paper"]
Device = Literal["auto", "cpu", "cuda"]
FeaturesName = Literal["float16", "int8", "pq", "1bit"]

ID_PREFIX = "id:"

CollectionArgument = Annotated[
    str, typer.Argument(help="Folder that `delg index` made, or address on a cluster.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Name (`delg weights list`) or file of the weights.")
]
ProfileOption = Annotated[
    ProfileName | None, typer.Option("--profile", help="Speed against quality; default balanced.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings file (.pbtxt) of the official DELG code, not with --profile."
    ),
]
FeaturesOption = Annotated[
    FeaturesName | None,
    typer.Option("--features", help="How local descriptors are kept; default: the profile's."),
]
KeypointsOption = Annotated[
    int | None,
    typer.Option("--keypoints", min=0, help="Most local features of a photo; 0: none."),
]
BytesOption = Annotated[
    int | None,
    typer.Option("--bytes-per-image", min=1, help="Most bytes of a photo's features."),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where the network runs; auto takes a GPU if there is.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default all.")
]
BoxOption = Annotated[
    str | None,
    typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Part of the query, in its pixels."),
]
ExpandOption = Annotated[
    int, typer.Option("--expand", min=0, help="Most similar photos added to the query; 0: none.")
]
AlphaOption = Annotated[
    float, typer.Option("--alpha", help="Added photos weigh similarity ** alpha.")
]
ExpandVerifiedOption = Annotated[
    bool,
    typer.Option("--expand-verified", help="Add confident matches to the query; search again."),
]


def writable(path: Path | None) -> Path | None:
    """What a command writes at its end, tried at its start: a callback of options."""
    if path is not None:
        from opendelg.whole_files import require_writable

        require_writable(path)
    return path


@dataclass(frozen=True)
class FeatureOptions:
    """What is kept of a photo, as far as options say it."""

    precision: FeaturesName | None = None
    keypoints: int | None = None
    bytes_per_image: int | None = None

    def applied(self, config: "ExtractionConfig", shape: "Architecture") -> "ExtractionConfig":
        """The settings for a network of this shape with these instead of their own."""
        from opendelg.budget import within_budget

        if self.precision is not None:
            config = replace(config, precision=self.precision)
        if self.keypoints is not None:
            config = replace(config, max_keypoints=self.keypoints)
        if self.bytes_per_image is not None:
            dimensions = shape.num_global_dimensions, shape.num_local_dimensions
            config = within_budget(config, self.bytes_per_image, *dimensions)
        return config


def parse_settings(kind: type[T], **values: Any) -> T:
    """Settings made of options; a value out of its range is a mistake in the command line."""
    try:
        return kind(**values)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def read_box(text: str | None) -> "Box | None":
    """The box of a --box option."""
    from opendelg.extraction import parse_box

    if text is None:
        return None
    try:
        return parse_box(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--box") from error


def parse_id(text: str) -> int | None:
    """N of id:N; None if the text is a path."""
    number = text.removeprefix(ID_PREFIX)
    return int(number) if text.startswith(ID_PREFIX) and number.isdecimal() else None


def read_config(file: Path | None, profile_name: str | None) -> "DelfConfig | None":
    """The settings of a --config option."""
    if file is None:
        return None
    if profile_name is not None:
        raise typer.BadParameter(
            "config must be given without --profile, got both", param_hint="--config"
        )
    from opendelg.delf_config import read_delf_config

    return read_delf_config(file)


def open_extractor(
    model: str | None,
    profile_name: str | None,
    device: Device,
    threads: int | None,
    settings: "DelfConfig | None" = None,
    features: FeatureOptions = FeatureOptions(),
) -> "Extractor":
    """An extractor by names; None is what the settings say, or the default."""
    from opendelg.extraction import Extractor
    from opendelg.recipes import make_extractor
    from opendelg.weights import DEFAULT_MODEL

    named = model or (settings.model if settings else DEFAULT_MODEL)
    if not named:
        raise typer.BadParameter(
            "model must be named, got no model_path in the settings file", param_hint="--model"
        )
    extractor = make_extractor(named, _extraction(profile_name, settings), device, threads)
    if settings is not None and model is None:
        settings.require_export(extractor.weights)
    config = features.applied(extractor.config, extractor.runtime.architecture)
    return Extractor(extractor.weights, config, extractor.runtime)


def _extraction(
    profile_name: str | None, settings: "DelfConfig | None"
) -> "ExtractionConfig | None":
    """What the options say of the extraction."""
    from opendelg.extraction import profile

    if settings is not None:
        return settings.extraction
    return None if profile_name is None else profile(profile_name)


def open_with_extractor(
    location: Path | str,
    model: str | None,
    profile_name: str | None,
    device: Device,
    threads: int | None,
    settings: "DelfConfig | None" = None,
    features: FeatureOptions = FeatureOptions(),
) -> tuple["Collection", "Extractor"]:
    """Open or make a collection, with the extractor that it is made by.

    A collection that exists decides what is not named; what is named must be the collection's.
    """
    from opendelg.collection import Collection
    from opendelg.extraction import ExtractionConfig
    from opendelg.recipes import extractor_for, open_or_create
    from opendelg.runtime import Architecture
    from opendelg.settings import read_settings

    if not Collection.exists(location):
        extractor = open_extractor(model, profile_name, device, threads, settings, features)
        return open_or_create(location, extractor), extractor
    collection = Collection.open(location)
    try:
        named = model or (settings.model if settings else None)
        recipe = collection.recipe
        config = _extraction(profile_name, settings) or read_settings(
            ExtractionConfig, recipe.extraction, str(location)
        )
        config = features.applied(config, Architecture.from_settings(recipe.model))
        return collection, extractor_for(collection, device, threads, named, config)
    except BaseException:
        collection.close()
        raise


@contextmanager
def kept_or_temporary(
    collection: Path | str | None,
    model: str | None,
    profile_name: str | None,
    device: Device,
    threads: int | None,
    settings: "DelfConfig | None" = None,
) -> Iterator[tuple["Collection", "Extractor"]]:
    """As `open_with_extractor`; without a place the features are forgotten in the end."""
    with ExitStack() as stack:
        location = collection or stack.enter_context(TemporaryDirectory(prefix="delg-"))
        opened, extractor = open_with_extractor(
            location, model, profile_name, device, threads, settings
        )
        stack.enter_context(opened)
        yield opened, extractor


def print_json(value: dict[str, Any]) -> None:
    """Print one object: undecodable bytes of file names become escapes, NaN becomes null."""
    print(json.dumps(_finite(value), ensure_ascii=True, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with None for each number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(path: Path | str) -> str:
    """A path or reason on one line, whatever its bytes are: what cannot be seen is escaped."""
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs"  # other spaces
        else character.encode("unicode_escape").decode()
        for character in str(path)
    )


def reason_of(error: OpenDelgError | OSError) -> str:
    """What is wrong; the system's own errors without their number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
