"""A made-up Google Landmarks v2 in its real layout, with the faults that a download has."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import draw_image

NUM_CLASSES = 200


@dataclass
class MadeUpDownload:
    """The folder and what is in it."""

    folder: Path
    images: dict[int, list[str]] = field(default_factory=dict)  # ids by landmark, as listed
    missing: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    disputed: set[str] = field(default_factory=set)  # two landmarks list them


def jpeg(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A drawn image as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(draw_image(size, seed).pixels).save(file, "JPEG")
    return file.getvalue()


def member_name(image_id: str) -> str:
    """The path of an image in tars and folders."""
    return f"{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Pack members, folders as entries of their own, as `tar c` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            folder = tarfile.TarInfo(str(Path(name).parent))
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def make_download(folder: Path) -> MadeUpDownload:
    """200 landmarks of 1 to 7 images in 4 tars, one of them cut off; some images are no JPEGs."""
    random = np.random.default_rng(0)
    made = MadeUpDownload(folder)
    drawings = [jpeg(seed) for seed in range(8)]
    tars: list[dict[str, bytes]] = [{} for _ in range(4)]
    for number in range(NUM_CLASSES):
        ids = [f"{value:016x}" for value in random.integers(0, 2**63, 1 + number % 7)]
        made.images[7 * number + 3] = ids
        for image_id in ids:
            data = drawings[number % 8]
            lot = random.random()
            if lot < 0.03:
                made.missing.add(image_id)
                continue
            if lot < 0.08:
                made.broken.add(image_id)
                data = data[: len(data) // 2] if lot < 0.06 else b"<html>404</html>"
            tars[int(image_id, 16) % 4][member_name(image_id)] = data
    for number, members in enumerate(tars):
        prefix = "train/" if number == 2 else ""  # as some were packed
        write_tar(
            folder / "train" / f"images_{number:03}.tar",
            {prefix + name: data for name, data in members.items()},
        )
    last = folder / "train" / "images_003.tar"
    kept = last.stat().st_size * 3 // 4
    data = last.read_bytes()[:kept]
    last.write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = []
        while True:
            try:
                member = tar.next()
            except tarfile.ReadError:
                break
            assert member is not None
            if member.isreg() and member.offset_data + member.size <= kept:
                names.append(Path(member.name).stem)
    made.missing |= {Path(name).stem for name in tars[3]} - set(names)
    made.broken -= made.missing
    _write_lists(made)
    return made


def _write_lists(made: MadeUpDownload) -> None:
    """``train_clean.csv``, its landmarks out of order and wrong rows between them."""
    rows = [f"{landmark},{' '.join(ids)}" for landmark, ids in reversed(made.images.items())]
    first = made.images[3][0]
    rows[5:5] = ["", "no comma", "12x,0123456789abcdef", "99991,", "99992,0123 0123456789ABCDEF"]
    rows[50:50] = [f"3,{first}", f"99993,{made.images[24][0]}"]  # again; for another landmark too
    made.disputed.add(made.images[24][0])
    text = "\n".join(["landmark_id,images", *rows]) + "\n"
    (made.folder / "train" / "train_clean.csv").write_text(text)
