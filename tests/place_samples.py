"""Small place recognition datasets in their official layouts, of drawn images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from tests.conftest import draw_image

# Five places 100 m apart; each is photographed for the database and by its query.
DATABASE = [(500_000.0 + 100 * place, 4_000_000.0) for place in range(5)]
QUERIES = [(500_010.0 + 100 * place, 4_000_005.0) for place in range(5)]


def save(path: Path, seed: int) -> None:
    """An image that is the same for equal seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_image((64, 64), seed).pixels).save(path)


def utm_name(east: float, north: float, *fields: str) -> str:
    return f"@{east:.2f}@{north:.2f}@{'@'.join(fields)}{'@' if fields else ''}.png"


def utm_folder(folder: Path, zone: str = "17", below: str = "") -> Path:
    """Query k shows the drawing of database image k."""
    for role, positions in (("database", DATABASE), ("queries", QUERIES)):
        for seed, (east, north) in enumerate(positions):
            save(folder / below / role / utm_name(east, north, zone, "T", "", "", f"p{seed}"), seed)
    return folder


def csv_file(path: Path, rows: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def table_folder(folder: Path) -> Path:
    """A folder of photos with positions.csv."""
    rows = ["image,role,east,north,frame,heading,region,panorama"]
    for role, positions in (("database", DATABASE), ("query", QUERIES)):
        for seed, (east, north) in enumerate(positions):
            save(folder / role / f"{seed}.png", seed)
            rows.append(f"{role}/{seed}.png,{role},{east},{north},{10 * seed},90,,")
    csv_file(folder / "positions.csv", rows)
    return folder


def msls_city(folder: Path, city: str, split: str = "train_val") -> Path:
    """A city: five places, a panorama in each role, and a query far from everything."""
    for role, positions in (("database", DATABASE), ("query", QUERIES)):
        placed = [*positions, DATABASE[0], (900_000.0, 4_000_000.0 + (role == "query") * 900)]
        keys = [f"{city}-{role[0]}{number}" for number in range(len(placed))]
        place = folder / split / city / role
        for seed, key in enumerate(keys):
            save(place / "images" / f"{key}.jpg", seed)
        lines = list(enumerate(zip(keys, placed, strict=True)))
        csv_file(
            place / "seq_info.csv",
            [",key,sequence_key,frame_number", *(f"{n},{key},s,{n}" for n, (key, _) in lines)],
        )
        csv_file(
            place / "subtask_index.csv",
            [",all,s2w,w2s,o2n,n2o,d2n,n2d"]
            + [f"{n},True,{n == 0},False,False,False,False,False" for n, _ in lines],
        )
        if split == "train_val":
            csv_file(
                place / "raw.csv",
                [",key,lon,lat,ca,captured_at,pano"]
                + [f"{n},{key},0,0,{90 + 50 * (n == 1)},,{n == 5}" for n, (key, _) in lines],
            )
            csv_file(
                place / "postprocessed.csv",
                [",key,easting,northing,unique_cluster,night,control_panel,view_direction"]
                + [f"{n},{key},{e},{m},0,False,False,Forward" for n, (key, (e, m)) in lines],
            )
    return folder


def dbstruct(
    folder: Path,
    specification: str = "pitts30k_test.mat",
    below: tuple[str, str] = ("", "queries_real"),
    **changes: Any,
) -> Path:
    """NetVLAD's layout; the values of the struct may be changed."""
    names = [[f"000/{role}{number}_pitch1.png" for number in range(5)] for role in "dq"]
    for place, own in zip(below, names, strict=True):
        for seed, name in enumerate(own):
            save(folder / place / name, seed)
    values = {
        "whichSet": "test",
        "dbImageFns": cell(names[0]),
        "utmDb": np.array(DATABASE).T,
        "qImageFns": cell(names[1]),
        "utmQ": np.array(QUERIES).T,
        "posDistThr": 25.0,
    }
    scipy.io.savemat(folder / specification, {"dbStruct": values | changes})
    return folder


def cell(names: Sequence[str]) -> np.ndarray:
    array = np.empty((len(names), 1), object)
    array[:, 0] = names
    return array
