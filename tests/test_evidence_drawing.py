"""Pictures of pairs: where lines go, what a missing photo becomes, how files are written."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from opendelg.errors import OpenDelgError
from opendelg.evidence import Evidence, Side, draw_evidence, png_name, write_png
from opendelg.evidence.layout import (
    COLOURS,
    MAX_LINES,
    Placement,
    placed_lines,
    placed_region,
    side_by_side,
    stacked,
)

GREY = (128, 128, 128)


def photo(folder: Path, name: str, size: tuple[int, int]) -> Side:
    path = folder / name
    Image.new("RGB", size, GREY).save(path)
    return Side(name, path, size)


@pytest.fixture
def plain(tmp_path: Path) -> Evidence:
    """Two grey photos of 400 x 400 px without matches."""
    query, database = (photo(tmp_path, name, (400, 400)) for name in ("query.png", "found.png"))
    return Evidence(query, database, 1, 0.8, 0, 0)


def with_matches(evidence: Evidence, query: object, database: object, inliers: object) -> Evidence:
    mask = np.array(inliers, bool)
    return replace(
        evidence,
        num_matches=len(mask),
        num_inliers=int(mask.sum()),
        query_points=np.array(query, np.float32).reshape(-1, 2),
        database_points=np.array(database, np.float32).reshape(-1, 2),
        inliers=mask,
    )


def pixel(image: Image.Image, x: int, y: int) -> list[int]:
    red, green, blue = np.asarray(image)[y, x].tolist()
    return [red, green, blue]


def photo_origin(image: Image.Image) -> tuple[int, int]:
    """The upper left corner of the first photo on its light page."""
    rows, columns = np.nonzero(np.all(np.asarray(image) == GREY, axis=2))
    return int(columns.min()), int(rows.min())


def test_a_pixel_centre_falls_on_the_middle_of_its_enlarged_square() -> None:
    placement = Placement(10, 20, 400, 800, (100, 200))
    assert placement.place(np.array([[0, 0], [99, 199]])).tolist() == [[12, 22], [408, 818]]


def test_photos_side_by_side_have_the_same_height() -> None:
    layout = side_by_side((400, 300), (300, 600), 600, gap=10)
    assert (layout.query.width, layout.database.width, layout.width) == (800, 300, 1110)
    assert layout.query.height == layout.database.height == 600


def test_stacked_photos_have_the_same_width() -> None:
    layout = stacked((400, 300), (300, 600), 600, gap=10)
    assert (layout.query.height, layout.database.height, layout.height) == (450, 1200, 1660)
    assert layout.database.y == 460


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1)])
def test_extreme_shapes_keep_a_drawable_size(size: tuple[int, int]) -> None:
    layout = side_by_side(size, (400, 300), 640, gap=10)
    assert 1 <= layout.height <= 640
    assert 2 <= layout.width <= 5 * 640


def test_a_line_runs_from_the_query_point_to_the_database_point(plain: Evidence) -> None:
    evidence = with_matches(plain, [[100, 200]], [[300, 200]], [True])
    image = draw_evidence(evidence, height=400)
    x, y = photo_origin(image)
    gap = 8
    expected = ImageColor.getrgb(COLOURS[0])
    for on_line in (100, 250, 400 + gap + 100, 400 + gap + 300):
        np.testing.assert_allclose(pixel(image, x + on_line, y + 200), expected, atol=16)
    for beyond in (80, 400 + gap + 320):
        assert pixel(image, x + beyond, y + 200) == list(GREY)


def test_rejected_matches_are_drawn_only_on_request(plain: Evidence) -> None:
    evidence = with_matches(plain, [[100, 200]], [[300, 200]], [False])
    without = draw_evidence(evidence, height=400)
    x, y = photo_origin(without)
    assert pixel(without, x + 250, y + 200) == list(GREY)
    faint = pixel(draw_evidence(evidence, height=400, show_rejected=True), x + 250, y + 200)
    assert 130 < faint[0] < 190


def test_regions_are_outlined_in_white(plain: Evidence) -> None:
    square = np.array([[100, 100], [300, 100], [300, 300], [100, 300]], np.float32)
    image = draw_evidence(replace(plain, query_region=square), height=400)
    x, y = photo_origin(image)
    assert min(pixel(image, x + 200, y + 100)) > 190
    assert pixel(image, x + 200, y + 200) == list(GREY)


def test_a_pair_without_matches_is_drawn_without_lines(plain: Evidence) -> None:
    image = draw_evidence(plain, height=400)
    x, y = photo_origin(image)
    assert np.all(np.asarray(image)[y : y + 400, x : x + 400] == GREY)


def test_neighbouring_lines_take_different_colours_in_order_of_height(plain: Evidence) -> None:
    points = [[10, 300], [10, 100], [10, 200]]
    evidence = with_matches(plain, points, points, [True] * 3)
    lines = placed_lines(evidence, side_by_side((400, 400), (400, 400), 400, 8), inliers=True)
    assert lines[:, 0, 1].tolist() == [100.5, 200.5, 300.5]


def test_a_thousand_inliers_are_thinned(plain: Evidence) -> None:
    points = np.random.default_rng(0).uniform(0, 399, (1000, 2))
    evidence = with_matches(plain, points, points, [True] * 1000)
    lines = placed_lines(evidence, side_by_side((400, 400), (400, 400), 400, 8), inliers=True)
    assert lines.shape == (MAX_LINES, 2, 2)


def test_points_that_are_no_numbers_are_left_out(plain: Evidence) -> None:
    evidence = with_matches(plain, [[np.nan, 1], [2, 2]], [[1, 1], [2, 2]], [True, True])
    lines = placed_lines(evidence, side_by_side((400, 400), (400, 400), 400, 8), inliers=True)
    assert lines.shape == (1, 2, 2)


def test_two_corners_make_no_region() -> None:
    placement = Placement(0, 0, 10, 10, (10, 10))
    assert placed_region(np.zeros((2, 2), np.float32), placement).shape == (0, 2)


def test_a_missing_photo_becomes_a_tile(plain: Evidence) -> None:
    gone = Side("gone.jpg", Path("/nowhere/gone.jpg"), (400, 400))
    evidence = with_matches(replace(plain, database=gone), [[100, 200]], [[300, 200]], [True])
    image = draw_evidence(evidence, height=400)
    x, y = photo_origin(image)
    assert pixel(image, x + 250, y + 200) == list(GREY)
    assert pixel(image, x + 420, y + 20) == [228, 225, 219]


def test_a_changed_photo_is_shown_without_lines(plain: Evidence) -> None:
    evidence = with_matches(plain, [[100, 200]], [[300, 200]], [True])
    Image.new("RGB", (300, 300), GREY).save(evidence.database.path)
    image = draw_evidence(evidence, height=400)
    x, y = photo_origin(image)
    assert np.all(np.asarray(image)[y : y + 400, x : x + 400] == GREY)


def test_the_query_box_is_drawn_as_dashes(plain: Evidence) -> None:
    image = draw_evidence(plain, height=400, query_box=(100, 100, 300, 300))
    x, y = photo_origin(image)
    above = np.asarray(image)[y + 100, x + 110 : x + 290].min(axis=1)
    assert above.max() > 200
    assert above.min() < 150


def test_points_and_inliers_must_have_one_length(plain: Evidence) -> None:
    with pytest.raises(ValueError, match=r"query_points must have shape \(1, 2\)"):
        replace(plain, inliers=np.ones(1, bool))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("Musée d’Orsay.jpg", "007_Musee_dOrsay.png", id="accents"),
        pytest.param("東京駅.jpg", "007_photo.png", id="no latin letter"),
        pytest.param("a:b*c?.jpg", "007_a_b_c.png", id="reserved by Windows"),
        pytest.param("<script>\n\udce9.jpg", "007_script.png", id="hostile"),
        pytest.param("x" * 200 + ".jpg", "007_" + "x" * 60 + ".png", id="long"),
    ],
)
def test_png_names_suit_every_system(plain: Evidence, name: str, expected: str) -> None:
    side = replace(plain.database, path=Path("/photos") / name)
    assert png_name(replace(plain, rank=7, database=side)) == expected


@pytest.mark.parametrize("label", ["caf\udce9\n.jpg", "תמונה.jpg", "東京駅.jpg", "\u202egpj", ""])
def test_any_label_can_be_drawn(plain: Evidence, label: str) -> None:
    evidence = replace(plain, database=replace(plain.database, label=label))
    assert draw_evidence(evidence, height=100).width > 200


def test_a_png_is_written_into_a_new_folder(plain: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "001.png"
    write_png(plain, path, height=100)
    with Image.open(path) as image:
        assert image.format == "PNG"
    assert os.listdir(path.parent) == ["001.png"]


def test_a_full_disk_leaves_the_old_file_and_no_scraps(
    plain: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "001.png"
    write_png(plain, path, height=100)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OpenDelgError, match=r"No space left on device.*free some space or choose"):
        write_png(plain, path, height=200)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["001.png"]


def test_a_file_in_place_of_the_folder_is_an_error_with_a_remedy(
    plain: Evidence, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OpenDelgError, match=r"output must be writable.*'; choose another folder"):
        write_png(plain, tmp_path / "out" / "001.png", height=100)
