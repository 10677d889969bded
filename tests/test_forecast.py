"""What is foretold, against what indexing then does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from opendelg import forecast as forecasting
from opendelg.collection import CollectionSizes, Layout
from opendelg.errors import OpenDelgError
from opendelg.extraction import profile
from opendelg.forecast import Forecast, advice, forecast
from opendelg.memory import installed_memory, peak_memory
from opendelg.recipes import make_extractor
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]
SIZES = Layout(512, 128, "int8", [1000], [20]).of(1000)


def foretold(num_images: int, sizes: CollectionSizes = SIZES) -> Forecast:
    return Forecast(num_images, 8, 0, 1000.0, 60.0, 1.0, 0.1, 0.1, 0.1, 10**9, 1.0, 1.0, sizes)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        Image.fromarray(draw_image((192, 128), number).pixels).save(folder / f"{number:02}.png")
    return folder


def test_bytes_are_those_of_the_collection_that_is_made(
    delg: Run, photos: Path, tiny_weights: Weights, tmp_path: Path
) -> None:
    model = ("--model", tiny_weights.path)
    plan = delg("plan", photos, *model, "--json").json
    assert delg("index", photos, "-c", tmp_path / "c", *model).code == 0
    info = delg("info", tmp_path / "c", "--json").json
    assert plan["num_images"] == info["num_images"] == 40
    assert plan["keypoints_per_image"] == info["num_local"] / 40
    assert plan["disk"] == pytest.approx(info["num_bytes"], rel=0.02)


def test_nothing_is_left_behind(
    delg: Run, photos: Path, tiny_weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert delg("plan", photos, "--model", tiny_weights.path).code == 0
    assert list(scratch.iterdir()) == []
    assert len(list(photos.iterdir())) == 40


def test_a_cluster_is_not_planned_as_a_folder(delg: Run) -> None:
    refused = delg("plan", "--n", 5, "-c", "milvus://host/photos?features=s3://bucket/photos")
    assert (refused.code, "must be in a folder to be planned" in refused.err) == (1, True)


def test_a_number_alone_is_measured_on_rendered_photos(
    delg: Run, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opendelg.cli.plan.PHOTO_SIZE", (96, 64))
    plan = delg("plan", "--n", 200_000, "--sample", 2, "--model", tiny_weights.path, "--json").json
    assert (plan["num_images"], plan["num_measured"]) == (200_000, 2)
    sizes = plan["sizes"]
    assert (sizes["coded_images"], sizes["exact_images"]) == (196_608, 3392)
    assert plan["advice"][0].startswith("index: one-bit codes of 196,608 images")
    assert plan["extraction_s"] == pytest.approx(200_000 * plan["query_s"])


def test_options_of_features_count(delg: Run, photos: Path, tiny_weights: Weights) -> None:
    model = ("--model", tiny_weights.path, "--json")
    whole = delg("plan", photos, *model).json
    small = delg("plan", photos, *model, "--features", "1bit", "--keypoints", 10).json
    assert small["keypoints_per_image"] == 10
    assert small["record_bytes"] == 52 + 10 * 9  # ranges, and 8 bytes and 8 bits each
    assert small["disk"] < whole["disk"]


def test_text_tells_all_stages(delg: Run, photos: Path, tiny_weights: Weights) -> None:
    lines = delg("plan", photos, "--model", tiny_weights.path).out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "photos",
        "extraction",
        "search index",
        "disk",
        "a search",
        "index",
    ]


def test_photos_that_cannot_be_read_are_counted(
    tmp_path: Path, photos: Path, tiny_weights: Weights
) -> None:
    (photos / "00.png").write_bytes(b"no image")
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    found = forecast([photos], extractor, num_sampled=4)
    assert (found.num_measured, found.num_unreadable) == (3, 1)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(OpenDelgError, match="a photo of the sample must be readable, got 1"):
        forecast([tmp_path / "bad.png"], extractor)


def test_pq_of_few_photos_stays_int8(photos: Path, tiny_weights: Weights) -> None:
    config = replace(profile("balanced"), precision="pq", max_keypoints=100)
    extractor = make_extractor(str(tiny_weights.path), config, device="cpu", threads=1)
    few = forecast([photos], extractor, num_sampled=2)
    many = forecast([photos], extractor, num_images=1000, num_sampled=2)
    assert (few.record_bytes, many.record_bytes) == (20 + 100 * 28, 52 + 100 * 10)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param([], 2, "photos or --n must be given", id="nothing"),
        pytest.param(["--n", "0"], 2, "Invalid value for '--n'", id="no photos"),
        pytest.param(["absent"], 1, "photos must exist, got 'absent'", id="absent"),
    ],
)
def test_mistakes_are_told(
    delg: Run, tiny_weights: Weights, arguments: list[str], code: int, message: str
) -> None:
    done = delg("plan", *arguments, "--model", tiny_weights.path)
    assert done.code == code
    assert message in done.err


def test_an_empty_folder_is_an_error(delg: Run, tiny_weights: Weights, tmp_path: Path) -> None:
    done = delg("plan", tmp_path, "--model", tiny_weights.path)
    assert (done.code, "photos must be at least one, got none" in done.err) == (1, True)


def test_a_disk_that_is_too_small_is_told() -> None:
    (_, line) = advice(foretold(1000), SIZES.disk - 5 * 10**8, 10**11)
    assert line.startswith("the disk lacks 0.5 GB")
    assert len(advice(foretold(1000), SIZES.disk, 10**11)) == 1


def test_memory_that_is_too_small_is_told() -> None:
    sizes = Layout(2048, 128, "int8", [1000], [20]).of(1_000_000)
    held = 10**9 + sizes.index_memory
    plan = foretold(1_000_000, sizes)
    assert "the memory lacks 1.0 GB" in advice(plan, 10**12, held - 10**9)[1]
    assert "8.1 GB of descriptors do not fit" in advice(plan, 10**12, held)[1]
    assert len(advice(plan, 10**12, held + sizes.mapped)) == 1
    assert len(advice(plan, 10**12, None)) == 1


def test_days_of_extraction_are_told() -> None:
    long = replace(foretold(1000), extraction_s=forecasting.LONG_S + 1)
    assert "extraction takes days" in advice(long, 10**12, None)[-1]


def test_memory_is_told_in_bytes() -> None:
    peak, installed = peak_memory(), installed_memory()
    assert peak is not None
    assert installed is not None
    assert 10**7 < peak <= installed
