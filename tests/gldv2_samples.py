"""A made-up Google Landmarks v2 as its two benchmarks need it, in the real layout."""

from pathlib import Path

from tests.landmark_samples import jpeg, member_name, write_tar

SIZE = (96, 80)


def image_id(split: str, number: int) -> str:
    """16 digits that begin with the split's: what they are sorted by is not their number."""
    return f"{'itr'.index(split[0]) + 1:x}{(7 * number + 3) % 16:x}{number:014x}"


def write_images(folder: Path, drawings: dict[str, bytes]) -> None:
    """Unpacked images by id."""
    for name, data in drawings.items():
        path = folder / member_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_gldv2(folder: Path, is_packed: bool = False) -> Path:
    """12 index, 12 train and 7 test images.

    Test images 0 to 4 are drawn as index and train images 0 to 4, test image 5 as none of them,
    and test image 6 is ignored by both solutions.  Index and train images n + 6 are other drawings
    of the landmark n, but 11, which is no JPEG.
    """
    seeds = {
        "index": [*range(5), 50, *range(100, 106)],
        "train": [*range(5), 50, *range(100, 106)],
        "test": [*range(5), 60, 0],
    }
    for split, drawn in seeds.items():
        images = {image_id(split, number): jpeg(seed, SIZE) for number, seed in enumerate(drawn)}
        if split != "test":
            images[image_id(split, 11)] = b"<html>404</html>"
        if is_packed:
            parts = [list(images.items())[part::2] for part in range(2)]
            for part, members in enumerate(parts):
                packed = {member_name(name): data for name, data in members}
                write_tar(folder / split / f"images_{part:03}.tar", packed)
        else:
            write_images(folder / split, images)
    _write_tables(folder)
    return folder


def _write_tables(folder: Path) -> None:
    index, train, test = (
        [image_id(split, number) for number in range(12)] for split in ("index", "train", "test")
    )
    metadata = folder / "metadata"
    metadata.mkdir(parents=True, exist_ok=True)
    _write(folder / "index" / "index.csv", "id", index)
    _write(folder / "test" / "test.csv", "id", test[:7])
    _write(
        metadata / "retrieval_solution_v2.1.csv",
        "id,images,Usage",
        [
            f"{test[0]},{index[0]} {index[6]},Public",
            f"{test[1]},{index[1]},Public",
            f"{test[2]},{index[2]} {index[8]},Private",
            f"{test[3]},{index[3]} {index[9]},Private",
            f"{test[5]},{index[11]},Private",
            f"{test[6]},None,Ignored",
        ],
    )
    _write(
        folder / "ground_truth" / "recognition_solution_v2.1.csv",
        "id,landmarks,Usage",
        [
            f"{test[0]},70,Public",
            f"{test[1]},71 9999,Public",
            f"{test[5]},,Public",
            f"{test[2]},72,Private",
            f"{test[3]},79,Private",
            f"{test[4]},,Private",
            f"{test[6]},70,Ignored",
        ],
    )
    _write(
        folder / "train" / "train_clean.csv",
        "landmark_id,images",
        [f"{70 + n},{train[n]} {train[n + 6]}" for n in range(6)],
    )
    _write(
        folder / "train" / "train.csv",
        "id,url,landmark_id",
        [f"{train[n]},http://x/{n}.jpg,{70 + n % 6}" for n in range(12)],
    )


def _write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
