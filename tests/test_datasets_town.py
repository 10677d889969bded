import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from opendelg.datasets.groups import read_groups
from opendelg.datasets.town import (
    TownManifest,
    make_place,
    plan_view,
    render_places,
    render_town,
    render_view,
)
from opendelg.datasets.town.light import HOURS
from opendelg.datasets.town.scene import LANDMARKS, place_name
from opendelg.datasets.town.surfaces import Camera, Texture, draw_surface, plane
from opendelg.errors import FormatError
from opendelg.image import read_image

SMALL = (96, 72)


def render_small_town(folder: Path, seed: int = 0, num_places: int = 2) -> TownManifest:
    return render_town(folder, seed, num_places, views_per_place=3, num_distractors=1, size=SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> TownManifest:
    return render_small_town(tmp_path_factory.mktemp("town"))


def test_every_photo_is_written_in_the_size_asked_for(town: TownManifest) -> None:
    paths = [*town.database, *town.queries, *town.unknown_queries]
    assert {read_image(path).size for path in paths} == {SMALL}


def test_counts_are_those_asked_for(town: TownManifest) -> None:
    counts = len(town.database), len(town.queries), len(town.unknown_queries)
    assert counts == (2 * 2 + 1, 2, 1)


def test_queries_lie_apart_from_the_database(town: TownManifest) -> None:
    assert {path.parent.name for path in town.database} == {"photos"}
    assert {path.parent.name for path in town.queries + town.unknown_queries} == {"queries"}


def test_names_try_a_space_and_a_letter_outside_ascii(town: TownManifest) -> None:
    names = {path.name for path in town.database}
    assert {"clock_tower_view_1.jpg", "café_view_2.jpg"} <= names
    assert place_name(2) == "old theatre"


def test_table_lists_every_photo_once(town: TownManifest) -> None:
    with town.groups.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {str(p.relative_to(town.folder)) for p in town.folder.glob("*/*")}
    assert list(rows[0]) == ["image", "group", "role"]
    assert sorted(row["image"] for row in rows) == sorted(found)


def test_evaluation_reads_the_table(town: TownManifest) -> None:
    dataset = read_groups(town.groups, town.folder)
    assert sorted(len(positives) for positives in dataset.positives) == [0, 2, 2]
    assert len(dataset.database_ids) == len(town.database)


def test_nothing_unfinished_is_left(town: TownManifest) -> None:
    assert not list(town.folder.rglob(".*"))


def test_same_seed_gives_the_same_bytes_again(town: TownManifest, tmp_path: Path) -> None:
    again = render_small_town(tmp_path)
    assert digests(again.folder) == digests(town.folder)


def test_smaller_town_replaces_a_larger_one(town: TownManifest, tmp_path: Path) -> None:
    folder = tmp_path / "town"
    shutil.copytree(town.folder, folder)
    (folder / "photos/clock_tower_view_1.jpg").write_bytes(b"damaged")
    smaller = render_small_town(folder, num_places=1)
    listed = {*smaller.database, *smaller.queries, *smaller.unknown_queries}
    assert set(folder.glob("*/*")) == listed
    assert {read_image(path).size for path in listed} == {SMALL}


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(FormatError, match=r"folder must be empty .* choose another folder"):
        render_small_town(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[", id="damaged"),
        pytest.param("{}", id="empty"),
        pytest.param('{"format": "other", "images": []}', id="foreign"),
    ],
)
def test_foreign_mark_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "town.json").write_text(text)
    with pytest.raises(FormatError, match=r"town\.json"):
        render_small_town(tmp_path)


def test_mark_cannot_delete_files_elsewhere(tmp_path: Path) -> None:
    kept = tmp_path / "mine.jpg"
    kept.write_bytes(b"mine")
    folder = tmp_path / "town"
    folder.mkdir()
    names = ["../mine.jpg", str(kept), "photos/../../mine.jpg"]
    (folder / "town.json").write_text(json.dumps({"format": "opendelg-town", "images": names}))
    render_town(folder, 0, 1, 2, 0, SMALL)
    assert kept.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_places": 0}, "num_places must be at least 1, got 0"),
        ({"views_per_place": 1}, "views_per_place must be at least 2, got 1"),
        ({"num_distractors": -1}, "num_distractors must be at least 0, got -1"),
        ({"size": (480, 10)}, "size must be at least 64, got 10"),
    ],
)
def test_small_numbers_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_town(tmp_path, **arguments)  # type: ignore[arg-type]


def test_progress_counts_every_photo(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_town(tmp_path, 0, 1, 2, 0, SMALL, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_render_places_yields_every_view() -> None:
    found = [(place, view, pixels.shape) for place, view, pixels in render_places(1, 2, 2, SMALL)]
    assert found == [
        (0, 0, (72, 96, 3)),
        (0, 1, (72, 96, 3)),
        (1, 0, (72, 96, 3)),
        (1, 1, (72, 96, 3)),
    ]


def test_another_seed_is_another_town() -> None:
    ours, theirs = (render_view(make_place(seed, 1), 0, SMALL) for seed in (0, 1))
    assert np.abs(ours.astype(int) - theirs).mean() > 10


def test_another_view_seed_is_another_photo_of_the_same_place() -> None:
    place = make_place(0, 3)
    ours, theirs = (render_view(place, 0, SMALL, seed) for seed in (0, 1))
    assert np.abs(ours.astype(int) - theirs).mean() > 10


def test_every_kind_of_landmark_has_structure() -> None:
    kinds = {maker: index for index, (_, maker, _) in enumerate(LANDMARKS)}
    views = [render_view(make_place(5, index), 0, SMALL) for index in kinds.values()]
    assert min(pixels.std() for pixels in views) > 12


def test_kinds_come_again_under_other_names() -> None:
    assert make_place(0, 3 + len(LANDMARKS)).name == "bakery_2"


def test_all_hours_occur() -> None:
    place = make_place(0, 3)
    assert {plan_view(place, view, SMALL).light.hour for view in range(80)} == set(HOURS)


def test_views_stay_within_sixty_four_degrees() -> None:
    place = make_place(0, 3)
    positions = [plan_view(place, view, SMALL).camera.position for view in range(40)]
    azimuths = np.rad2deg([np.arctan2(x, -z) for x, _, z in positions])
    assert np.abs(azimuths).max() <= 32
    assert np.ptp(azimuths) > 45


def test_point_ahead_is_in_the_centre_of_the_picture() -> None:
    camera = Camera.looking_at((0, 2, -10), (3, 4, 0), 20.0, 100.0, (101, 51))
    np.testing.assert_allclose(camera.project(np.array([[3, 4, 0]])), [[50, 25]], atol=1e-9)


def test_right_is_right_and_up_is_up() -> None:
    camera = Camera.looking_at((0, 0, -10), (0, 0, 0), 0.0, 100.0, (101, 51))
    np.testing.assert_allclose(camera.project(np.array([[1, 2, 0]])), [[60, 5]], atol=1e-9)


def test_points_behind_the_camera_have_no_pixel() -> None:
    camera = Camera.looking_at((0, 0, -10), (0, 0, 0), 0.0, 100.0, (101, 51))
    assert np.isnan(camera.project(np.array([[0, 0, -11]]))).all()


def test_texture_is_drawn_where_the_camera_projects_it() -> None:
    texels = np.zeros((8, 8, 4), np.uint8)
    texels[2, 6, :3] = 255  # its middle is 6.5 / 8 across and 2.5 / 8 down
    surface = plane(Texture(texels), (-2, 2, 0), (2, 2, 0), (-2, -2, 0))
    camera = Camera.looking_at((4, 1, -9), (0, 0, 0), 10.0, 400.0, (320, 240))
    image = np.zeros((240, 320, 3), np.float32)
    draw_surface(image, surface, camera, np.ones(3), (0.0, np.zeros(3)))
    y, x = np.nonzero(image[..., 0] > 0.5)
    expected = camera.project(np.array([[-2 + 4 * 6.5 / 8, 2 - 4 * 2.5 / 8, 0]]))[0]
    np.testing.assert_allclose([x.mean(), y.mean()], expected, atol=0.6)


def test_one_point_of_a_facade_looks_alike_in_two_views() -> None:
    place = make_place(0, 7)  # the painted wall: large shapes, nothing stands out of it
    patches = [facade_patch(place.index, view) for view in (0, 1, 2)]
    other = facade_patch(23, 0)
    alike = np.corrcoef([*patches, other])
    assert alike[0, 1:3].min() > alike[0, 3] + 0.2


def facade_patch(index: int, view: int) -> np.ndarray:
    """Brightness of a grid of points on the front, (576,) float64."""
    place, size = make_place(0, index), (480, 360)
    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 24), np.linspace(4, 6.5, 24))
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    at = plan_view(place, view, size).camera.project(points).round().astype(int)
    at = at.clip(0, np.array(size) - 1)
    pixels = render_view(place, view, size)[at[:, 1], at[:, 0]]
    return np.asarray(pixels.mean(axis=1))
