"""Seeded features and collections for the collection tests."""

from pathlib import Path

import numpy as np

from opendelg.collection import Collection, FileStat, Recipe
from opendelg.features import ImageFeatures, LocalFeatures

RECIPE = Recipe(
    weights_name="tiny",
    weights_sha256="ab" * 32,
    extraction={"max_size": 1024, "scales": (0.7071, 1.0)},
    model={"backbone": "resnet50"},
)


def unit_rows(rng: np.random.Generator, num_rows: int, num_columns: int) -> np.ndarray:
    rows = rng.standard_normal((num_rows, num_columns)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def local_features(seed: int, num_keypoints: int = 5, num_columns: int = 8) -> LocalFeatures:
    rng = np.random.default_rng(seed)
    return LocalFeatures(
        keypoints=rng.uniform(0, 4000, (num_keypoints, 2)).astype(np.float32),
        descriptors=unit_rows(rng, num_keypoints, num_columns),
        scores=np.sort(rng.uniform(100, 900, num_keypoints).astype(np.float32))[::-1],
        scales=rng.choice(np.array([0.25, 0.7071, 2.0], np.float32), num_keypoints),
    )


def image_features(seed: int, num_dimensions: int = 16) -> ImageFeatures:
    rng = np.random.default_rng(seed)
    return ImageFeatures(
        size=(640 + seed, 480),
        global_descriptor=unit_rows(rng, 1, num_dimensions)[0],
        local=local_features(seed),
    )


def file_stat(seed: int) -> FileStat:
    return FileStat(
        size=1000 + seed, mtime_ns=1_700_000_000_000_000_000 + seed, sha256=f"{seed:064x}"
    )


def add_image(collection: Collection, root: Path, seed: int, name: str | None = None) -> int:
    path = root / (name or f"photo {seed:03}.jpg")
    return collection.add(path, root, file_stat(seed), image_features(seed))


def small_collection(folder: Path, root: Path, num_images: int = 3) -> Collection:
    collection = Collection.create(folder, RECIPE)
    with collection.batch():
        for seed in range(num_images):
            add_image(collection, root, seed)
    return collection
