"""What a run trains on, and what is wrong with it: said before the first step."""

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.training.data import Views
from opendelg.training.photos import PhotoList
from opendelg.whole_files import replacing

logger = logging.getLogger(__name__)

FILE_NAME = "audit.json"
NUM_SAMPLED = 1000  # photos decoded to see how many are damaged, where not all are


def write_audit(photo_list: PhotoList, views: Views, output: Path, is_resumed: bool) -> None:
    """Write ``<output>/audit.json`` and log it in short.

    Raises:
        OpenDelgError: If a resumed run would give its labels to other classes than it began with.
    """
    path = output / FILE_NAME
    audit = audit_photos(photo_list, views)
    if is_resumed and path.is_file():
        began = json.loads(path.read_text(encoding="utf-8"))["classes_hash"]
        if began != audit["classes_hash"]:
            raise OpenDelgError(
                f"classes must stay what they were when the run began, got others in "
                f"{str(output)!r}; choose another output or restore the photos' list"
            )
    with replacing(path) as written:
        written.write_text(json.dumps(audit, indent=2) + "\n", encoding="utf-8")
    logger.info("%d photos of %d classes: %s", audit["photos"], audit["classes"], path)
    if audit["classes_without_photos"]:
        logger.warning("%d classes have no photo to train on", audit["classes_without_photos"])
    for section in audit["sections"]:
        for name, fault in section["faults"].items():
            if fault["count"]:
                logger.warning(
                    "%s: %d %s, the first %s",
                    section["name"], fault["count"], name.replace("_", " "), fault["examples"][0],
                )  # fmt: skip


def audit_photos(photo_list: PhotoList, views: Views) -> dict[str, Any]:
    """Counts, faults and hashes of what is trained on, as plain values."""
    counts = np.bincount(views.labels, minlength=len(photo_list.class_names))
    present = np.flatnonzero(counts)
    smallest, largest = present[np.argmin(counts[present])], np.argmax(counts)
    return {
        "photos": len(views),
        "classes": len(photo_list.class_names),
        "classes_without_photos": len(counts) - len(present),
        "classes_of_one_photo": int((counts == 1).sum()),
        "smallest_class": _class(photo_list, counts, int(smallest)),
        "largest_class": _class(photo_list, counts, int(largest)),
        "unreadable": _unreadable(photo_list, views),
        "classes_hash": _classes_hash(photo_list),
        "sections": [
            {
                "name": section.name,
                "photos": len(section.photos),
                "classes": len(section.class_names),
                "split_hash": section.split_hash,
                "faults": {name: vars(fault) for name, fault in section.faults.items()},
            }
            for section in photo_list.sections
        ],
    }


def _class(photo_list: PhotoList, counts: np.ndarray, label: int) -> dict[str, Any]:
    return {"name": photo_list.class_names[label], "photos": int(counts[label])}


def _unreadable(photo_list: PhotoList, views: Views) -> dict[str, int]:
    """How many photos cannot be decoded, and how many were tried."""
    num_tried = len(photo_list.photos)
    if not views.config.is_in_memory:
        num_tried = min(num_tried, NUM_SAMPLED)
        sample = np.random.default_rng(0).choice(len(views), num_tried, replace=False)
        with ThreadPoolExecutor() as pool:
            list(pool.map(views.read, sample.tolist()))
    return {"tried": num_tried, "count": views.num_unreadable}


def _classes_hash(photo_list: PhotoList) -> str:
    """SHA-256 of the classes' names in label order, without the folders that may be moved."""
    names = [
        name.removeprefix(section.folder)
        for section in photo_list.sections
        for name in section.class_names
    ]
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
