"""Photos and their labels in a table: the columns ``image`` and ``label``, as for `groups`.

Unlike there, wrong rows are counted and left out: training goes on without a photo.
"""

from dataclasses import dataclass, field
from pathlib import Path

from opendelg.datasets.faults import Faults
from opendelg.datasets.table import image_name, read_table
from opendelg.errors import FormatError

COLUMNS = ("image", "label")


@dataclass(frozen=True)
class LabelledImages:
    """Images below a folder, each once, by name."""

    labels: dict[str, str]  # label by name
    malformed_rows: Faults = field(default_factory=Faults)
    repeated_images: Faults = field(default_factory=Faults)  # kept once
    images_with_two_labels: Faults = field(default_factory=Faults)  # left out: nobody knows
    missing_images: Faults = field(default_factory=Faults)


def read_labels(table: Path, images: Path) -> LabelledImages:
    """The images in a table that lie in the folder ``images``.

    Raises:
        FormatError: If the file is no CSV in UTF-8 or lacks a column.
        FileNotFoundError: If the table or the folder does not exist.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {str(images)!r}")
    found = LabelledImages({})
    disputed: set[str] = set()
    for row in read_table(table, COLUMNS):
        try:
            values = row.values()
            name, label = image_name(values["image"], row.where), values["label"]
        except FormatError as error:
            found.malformed_rows.add(str(error))
            continue
        if not values["image"] or not label:
            found.malformed_rows.add(f"image and label must not be empty in {row.where}")
        elif name not in found.labels:
            found.labels[name] = label
        elif found.labels[name] == label:
            found.repeated_images.add(name)
        elif name not in disputed:
            disputed.add(name)
            found.images_with_two_labels.add(name)
    for name in list(found.labels):
        if name in disputed:
            del found.labels[name]
        elif not (images / name).is_file():
            del found.labels[name]
            found.missing_images.add(name)
    return found
