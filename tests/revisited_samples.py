"""A made-up Revisited Oxford in its published layout, and distractors for it."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import draw_image

QUERIES = ("all_souls_1", "keble_2")
DATABASE = tuple(f"db_{number}" for number in range(8))
# Each query is cut out of a drawing; database images 0-2 and 3-5 show the two drawings.
GROUND_TRUTH: dict[str, Any] = {
    "imlist": list(DATABASE),
    "qimlist": list(QUERIES),
    "gnd": [
        {"bbx": [16.0, 8.0, 144.0, 120.0], "easy": [2, 0], "hard": [1], "junk": [6]},
        {"bbx": [20.0, 4.0, 170.0, 110.0], "easy": [3], "hard": [5, 4], "junk": []},
    ],
}
DRAWN = {
    **{QUERIES[0]: (0, 0), QUERIES[1]: (1, 0)},
    **{DATABASE[n]: (n // 3, 4 * (n % 3) + 4) for n in range(6)},
    **{DATABASE[6]: (0, 20), DATABASE[7]: (9, 0)},
}


def photo(drawing: int, cut: int = 0) -> bytes:
    """A drawing without some of its columns, as a JPEG of 192 x 128 px at most."""
    file = io.BytesIO()
    Image.fromarray(draw_image((192, 128), drawing).pixels[:, cut:]).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_dataset(folder: Path, truth: dict[str, Any] | None = None) -> Path:
    """The ground truth and all photos."""
    (folder / "jpg").mkdir(parents=True)
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth or GROUND_TRUTH, 2))
    for name, (drawing, cut) in DRAWN.items():
        (folder / "jpg" / f"{name}.jpg").write_bytes(photo(drawing, cut))
    return folder


def distractor_files(count: int) -> dict[str, bytes]:
    """Distractors by their path below their folder; the first shows what the first query does."""
    files = {f"{n // 2}/other_{n}.jpg": photo(100 + n) for n in range(1, count)}
    return {"0/other_0.jpg": photo(0, 2), **files}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """Files in a tar, gzipped if its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def matlab_truth(truth: dict[str, Any]) -> dict[str, Any]:
    """The same as the makers' .mat files hold it: ids from 1, rows, cells, an array of structs."""
    entries = np.zeros((1, len(truth["gnd"])), [(k, object) for k in truth["gnd"][0]])
    for number, entry in enumerate(truth["gnd"]):
        ids = {k: np.array([entry[k]], float) + 1 for k in ("easy", "hard", "junk")}
        row = {**ids, "bbx": np.array([entry["bbx"]])}
        entries[0, number] = tuple(row[k] for k in entries.dtype.names)
    cells = {key: np.array([truth[key]], object) for key in ("imlist", "qimlist")}
    return {**cells, "gnd": entries}
