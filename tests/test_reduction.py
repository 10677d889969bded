from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.errors import OpenDelgError
from opendelg.image import read_image
from opendelg.recipes import make_extractor
from opendelg.reduction import MAX_PHOTOS, chosen, learn_axes, principal_axes, write_reduced
from opendelg.weights import Weights, read_weights
from tests.collection_samples import unit_rows
from tests.tar_samples import pack

Run = Callable[..., SimpleNamespace]


def descriptors(model: Path, files: list[Path]) -> np.ndarray:
    extractor = make_extractor(str(model), device="cpu", threads=1)
    return np.stack([extractor.extract(read_image(file)).global_descriptor for file in files])


def test_axes_keep_the_products_of_rows_that_lie_in_few_directions() -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows(rng, 50, 3) @ np.linalg.qr(rng.standard_normal((16, 3)))[0].T
    axes, kept = principal_axes(rows, 3)
    assert kept == pytest.approx(1)
    np.testing.assert_allclose(rows @ axes @ (rows @ axes).T, rows @ rows.T, atol=1e-6)


def test_the_share_kept_is_that_of_the_strongest_axes() -> None:
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    axes, kept = principal_axes(rows, 1)
    assert kept == pytest.approx(0.75)
    np.testing.assert_allclose(np.abs(axes[:, 0]), [1, 0, 0], atol=1e-12)


def test_a_reduced_model_gives_the_projected_descriptors(
    tiny_weights: Weights, drawn_files: list[Path], tmp_path: Path
) -> None:
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    axes, kept = learn_axes(extractor, drawn_files, 4)
    write_reduced(tiny_weights, axes, kept, tmp_path / "reduced.safetensors")
    before, after = (
        descriptors(path, drawn_files)
        for path in (tiny_weights.path, tmp_path / "reduced.safetensors")
    )
    projected = before @ axes
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    # float16 weights, and a pyramid is summed after its levels were brought to unit length.
    np.testing.assert_allclose(after @ after.T, projected @ projected.T, atol=0.02)
    assert after.shape == (6, 4)


def test_local_features_threshold_and_origin_stay(tiny_weights: Weights, tmp_path: Path) -> None:
    axes = np.eye(16)[:, :4]
    write_reduced(tiny_weights, axes, 0.9, tmp_path / "reduced.safetensors")
    made = read_weights(tmp_path / "reduced.safetensors")
    assert made.model == tiny_weights.model | {"num_global_dimensions": 4}
    assert made.score_threshold == tiny_weights.score_threshold
    assert made.training["reduced"] == {"from": tiny_weights.sha256, "dimensions": 16, "kept": 0.9}
    changed = [
        name
        for name, array in made.state.items()
        if not np.array_equal(array, tiny_weights.state[name])
    ]
    assert changed == ["whitening.bias", "whitening.weight"]


def test_axes_need_as_many_photos(tiny_weights: Weights, drawn_files: list[Path]) -> None:
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    with pytest.raises(OpenDelgError, match="photos must be at least as many as dimensions, 8"):
        learn_axes(extractor, drawn_files, 8)


def test_only_some_of_many_photos_are_read() -> None:
    photos = [Path(f"{number}.jpg") for number in range(3 * MAX_PHOTOS)]
    taken = chosen(photos)
    assert (len(taken), taken[0], taken[-1]) == (MAX_PHOTOS, photos[0], photos[-1])
    assert chosen([]) == []


def test_the_command_makes_a_model_that_indexes(
    delg: Run, tiny_weights: Weights, drawn_files: list[Path], tmp_path: Path
) -> None:
    out, photos = tmp_path / "reduced.safetensors", drawn_files[0].parent
    made = delg(
        "weights", "reduce", tiny_weights.path, photos, "--dimensions", 5, "--out", out, "--json"
    )
    assert (made.json["dimensions"], made.json["dimensions_before"]) == (5, 16)
    assert 0.5 < made.json["kept"] <= 1
    assert delg("index", photos, "-c", tmp_path / "c", "--model", out).code == 0
    assert delg("info", tmp_path / "c", "--json").json["global_dimensions"] == 5


def test_the_command_learns_on_a_tar(
    delg: Run,
    tiny_weights: Weights,
    drawn_files: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, out = drawn_files[0].parent, tmp_path / "reduced.safetensors"
    tar = pack(tmp_path / "photos.tar", folder)
    command = ("weights", "reduce", tiny_weights.path, "--dimensions", 2, "--out", out, "--json")
    assert delg(*command, tar).json["kept"] == delg(*command, folder).json["kept"]
    broken = tmp_path / "broken.png"
    broken.write_text("no photo")
    assert delg(*command, folder, broken).code == 0
    assert f"left out: {str(broken)!r}: image must be a JPEG" in caplog.text


def test_more_dimensions_than_there_are_is_an_error(
    delg: Run, tiny_weights: Weights, drawn_files: list[Path], tmp_path: Path
) -> None:
    done = delg(
        "weights",
        "reduce",
        tiny_weights.path,
        *drawn_files,
        "--dimensions",
        16,
        "-o",
        tmp_path / "x",
    )
    assert (done.code, (tmp_path / "x").exists()) == (1, False)
    assert "dimensions must be between 1 and 15" in done.err
