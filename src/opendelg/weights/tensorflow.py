"""Import of official DELG models, without TensorFlow.

    import_weights(Path("r50delg_gldv2clean_20200914.tar.gz"), Path("r50.safetensors"))

Read are TF1 saved models as released, saved models of the open training code, and checkpoints of
either code base (SPEC 6.2 to 6.5).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from opendelg.errors import WeightsError
from opendelg.weights.archive import archive_title, is_archive, unpack_model
from opendelg.weights.bundle import Bundle, open_bundle
from opendelg.weights.checkpoint import write_weights
from opendelg.weights.object_names import OBJECT_GRAPH, attribute_names
from opendelg.weights.official_network import read_official_network
from opendelg.weights.published import PUBLISHED
from opendelg.weights.saved_model import read_saved_model


@dataclass(frozen=True)
class _Source:
    """Files of one model."""

    prefix: Path  # of the variables bundle
    graph: Path | None


def import_weights(
    source: Path, target: Path, *, name: str | None = None, score_threshold: float | None = None
) -> Path:
    """Turn an official model into a weights file, float32.

    Args:
        source: Folder of a saved model, a ``.tar.gz`` of one, a Keras checkpoint: its folder, its
            prefix or its ``.index`` file.
        target: The file to write.
        name: What the weights are called; None: as the source.
        score_threshold: Attention below which a cell is no local feature; None: that of a released
            model which ``source`` or ``name`` names, else 0, which keeps all.

    Returns:
        ``target``.

    Raises:
        WeightsError: If the source is no such model, damaged, or does not fit a DELG network.
    """
    with _opened(source) as files:
        if files.graph is not None and not files.prefix.with_name("variables.index").is_file():
            raise WeightsError(
                f"saved model must have its variables/ folder, got none in {str(source)!r}; "
                "a frozen graph cannot be imported"
            )
        bundle = open_bundle(files.prefix)
        names = _names(bundle, repr(str(source)))
        saved = None if files.graph is None else read_saved_model(files.graph).renamed(names)
        shapes = {names[stored]: tensor.shape for stored, tensor in bundle.tensors.items()}
        stored_names = {new: stored for stored, new in names.items()}

        def read(name: str) -> np.ndarray:
            return bundle.read(stored_names[name])

        network = read_official_network(shapes, saved, repr(str(source)))
        for dropped in network.dropped:
            read(dropped)  # for its checksum: a damaged file is damaged
        state = network.state(read)
        title = title_of(source)
        if score_threshold is None:
            folder = files.prefix.parent.parent.name  # an archive may have been renamed
            score_threshold = _released_threshold(name or "", title, folder)
        write_weights(
            target,
            name or title,
            state,
            network.model,
            score_threshold,
            training={
                "imported_from": title,
                "format": "checkpoint" if saved is None else "saved model",
                "tensorflow_version": "" if saved is None else saved.tensorflow_version,
                "heads_found_by": network.heads_found_by,
                "assumed": {setting: network.model[setting] for setting in network.assumed},
                "dropped": [*network.dropped, *bundle.texts],
            },
            precision="float32",
        )
    return target


def _names(bundle: Bundle, where: str) -> dict[str, str]:
    """What we call each tensor of a bundle: in Keras by the attributes that hold it."""
    names = {name: name for name in bundle.tensors}
    if OBJECT_GRAPH in bundle.texts:
        by_attribute = attribute_names(bundle.read_text(OBJECT_GRAPH), where)
        names |= {name: new for name, new in by_attribute.items() if name in names}
    if len(set(names.values())) < len(names):
        raise WeightsError(f"variables must have distinct names, got one twice in {where}")
    return names


def title_of(source: Path) -> str:
    """What people call a model: the name of its archive or folder."""
    if is_archive(source):
        return archive_title(source)
    place = source.resolve()
    if not place.is_dir():
        place = place.parent
    if place.name in ("saved_model", "variables") and place.parent.name:
        place = place.parent
    return place.name


def _released_threshold(*names: str) -> float:
    """The threshold of the released model that is part of a name; the longest counts."""
    thresholds = {
        known.release: known.score_threshold for known in PUBLISHED.values() if known.release
    }
    for release in sorted(thresholds, key=len, reverse=True):
        if any(release in name for name in names):
            return thresholds[release] or 0.0
    return 0.0


@contextmanager
def _opened(source: Path) -> Iterator[_Source]:
    """The files of a source; an archive is unpacked for as long as they are needed."""
    if source.is_file() and is_archive(source):
        with TemporaryDirectory(prefix="opendelg-") as folder:
            unpack_model(source, Path(folder))
            yield _in_folder(Path(folder), source)
    elif source.is_dir():
        yield _in_folder(source, source)
    elif source.name == "saved_model.pb" and source.is_file():
        yield _in_folder(source.parent, source)
    elif source.name.endswith(".index") and source.is_file():
        yield _of_prefix(source.with_name(source.name.removesuffix(".index")))
    elif source.with_name(source.name + ".index").is_file():
        yield _of_prefix(source)
    else:
        raise WeightsError(
            "path must be a saved model folder, a .tar.gz of one or a checkpoint, got "
            f"{str(source)!r}{'' if source.exists() else ', which does not exist'}"
        )


def _in_folder(folder: Path, source: Path) -> _Source:
    """The one model in a folder, or in one of the folders in it."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "variables")
    for places in ([folder], below):
        found = []
        for place in places:
            if (place / "saved_model.pb").is_file():
                found.append(_Source(place / "variables" / "variables", place / "saved_model.pb"))
            else:
                found += [
                    _of_prefix(index.with_name(index.name.removesuffix(".index")))
                    for index in sorted(place.glob("*.index"))
                ]
        if len(found) > 1:
            names = [str(model.graph or model.prefix) for model in found]
            raise WeightsError(
                f"model must be the only one in {str(source)!r}, got {names}; name one of them"
            )
        if found:
            return found[0]
    raise WeightsError(
        f"model must hold saved_model.pb or a checkpoint's .index file, got neither in "
        f"{str(source)!r}"
    )


def _of_prefix(prefix: Path) -> _Source:
    """A checkpoint, or the variables of a saved model."""
    graph = prefix.parent.parent / "saved_model.pb"
    if prefix.name == "variables" and graph.is_file():
        return _Source(prefix, graph)
    return _Source(prefix, None)
