import numpy as np
import pytest
import torch
from PIL import Image

from opendelg.errors import OpenDelgError
from opendelg.training.augmentation import AugmentationConfig, change_light, random_view
from opendelg.training.chance import LIGHT, Chance, seeds_of
from opendelg.training.data import DataConfig, Views, read_photo
from opendelg.training.photos import Photo, PhotoFolder, list_photos

STILL = AugmentationConfig(min_area=1.0, max_aspect=1.0, max_rotation_deg=0.0, max_perspective=0.0)
DARK = AugmentationConfig(
    max_brightness=0.0, max_contrast=0.0, max_colour=0.0, blur_probability=0.0, max_noise=0.0
)


def write_photo(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ramp(height, width):
    """A photo whose red is x and whose green is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 200)], axis=2).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    """Two classes in folders, two photos on their own."""
    for name in ("town/church/a.png", "town/church/b.png", "town/bridge/a.png", "rest/x.png"):
        write_photo(tmp_path / name, np.full((40, 48, 3), 128, np.uint8))
    write_photo(tmp_path / "rest/sub/y.png", np.full((40, 48, 3), 128, np.uint8))
    return tmp_path


# Labels.


def test_each_folder_with_photos_is_a_class(root):
    listed = list_photos([PhotoFolder("town")], root)
    assert [photo.path.relative_to(root).as_posix() for photo in listed.photos] == [
        "town/bridge/a.png",
        "town/church/a.png",
        "town/church/b.png",
    ]
    assert listed.labels.tolist() == [0, 1, 1]
    assert listed.class_names == (str(root / "town/bridge"), str(root / "town/church"))


def test_instances_are_a_class_each(root):
    listed = list_photos([PhotoFolder("rest", "instances")], root)
    assert listed.labels.tolist() == [0, 1]


def test_labels_go_on_over_folders(root):
    listed = list_photos([PhotoFolder("town"), PhotoFolder("rest", "instances")], root)
    assert listed.labels.tolist() == [0, 1, 1, 2, 3]
    assert len(listed.class_names) == 4


def test_classes_of_the_same_name_in_two_folders_differ(root):
    write_photo(root / "city/church/a.png", np.full((40, 48, 3), 128, np.uint8))
    listed = list_photos([PhotoFolder("town/church"), PhotoFolder("city/church")], root)
    assert listed.labels.tolist() == [0, 0, 1]


def test_an_absent_folder_is_an_error(root):
    with pytest.raises(OpenDelgError, match=r"data folder must be a directory, got .*nowhere"):
        list_photos([PhotoFolder("nowhere")], root)


def test_a_folder_without_photos_is_an_error(root):
    (root / "empty").mkdir()
    with pytest.raises(OpenDelgError, match=r"data folder must hold photos, got none in .*empty"):
        list_photos([PhotoFolder("empty")], root)


# Tables.


@pytest.fixture
def table(root):
    return root / "labels.csv"


def test_a_table_gives_labels_in_their_order(root, table):
    table.write_text("label,image\nz,town/church/a.png\na,rest/x.png\nz,town/church/b.png\n")
    listed = list_photos([PhotoFolder(csv="labels.csv")], root)
    assert [photo.path.name for photo in listed.photos] == ["a.png", "x.png", "b.png"]
    assert listed.labels.tolist() == [1, 0, 1]
    assert listed.class_names == (f"{table}: a", f"{table}: z")


def test_images_of_a_table_may_lie_in_another_folder(root, table):
    table.write_text("image,label\nchurch/a.png,1\n")
    listed = list_photos([PhotoFolder(csv="labels.csv", images="town")], root)
    assert listed.photos[0].path == root / "town/church/a.png"


def test_faults_of_a_table_are_counted_and_left_out(root, table):
    rows = ["town/church/a.png,1", "town/church/a.png,1", "rest/x.png,1", "rest/x.png,2", "none,1"]
    wrong = ["x", ",1", "rest/sub/y.png,", "../a.png,1", "/etc/a.png,1"]
    table.write_text("\n".join(["image,label", *rows, *wrong]))
    (section,) = list_photos([PhotoFolder(csv="labels.csv")], root).sections
    assert [photo.path.name for photo in section.photos] == ["a.png"]
    assert {name: fault.count for name, fault in section.faults.items()} == {
        "malformed_rows": 5,
        "repeated_images": 1,
        "images_with_two_labels": 1,
        "missing_images": 1,
    }


def test_a_table_without_images_is_an_error(root, table):
    table.write_text("image,label\nnone.png,1\n")
    with pytest.raises(OpenDelgError, match=r"data table must give photos, .* 1 missing images"):
        list_photos([PhotoFolder(csv="labels.csv")], root)


def test_an_absent_table_is_an_error(root):
    with pytest.raises(OpenDelgError, match="data table must exist"):
        list_photos([PhotoFolder(csv="none.csv")], root)


def test_sections_of_every_kind_follow_each_other(root, table):
    table.write_text("image,label\nrest/x.png,a\n")
    listed = list_photos([PhotoFolder("town"), PhotoFolder(csv="labels.csv")], root)
    assert [photo.path.name for photo in listed.photos] == ["a.png", "a.png", "b.png", "x.png"]
    assert listed.labels.tolist() == [0, 1, 1, 2]
    with pytest.raises(IndexError, match=r"photo must be in 0..3, got 4"):
        listed.photos[4]


# Reading.


@pytest.mark.parametrize(
    ("top", "left"), [(10, 0), (0, 12), (7, 5)], ids=["rows", "columns", "both"]
)
def test_letterbox_is_cut_off(tmp_path, top, left):
    pixels = np.full((64 + 2 * top, 80 + 2 * left, 3), 10, np.uint8)  # not quite black
    pixels[top : top + 64, left : left + 80] = ramp(64, 80)
    write_photo(tmp_path / "box.png", pixels)
    assert np.array_equal(read_photo(Photo(tmp_path / "box.png"), 384), ramp(64, 80))


def test_dark_parts_inside_a_photo_stay(tmp_path):
    pixels = ramp(64, 80)
    pixels[20:40] = 0
    write_photo(tmp_path / "dark.png", pixels)
    assert np.array_equal(read_photo(Photo(tmp_path / "dark.png"), 384), pixels)


def test_a_photo_that_is_almost_all_black_stays_whole(tmp_path):
    pixels = np.zeros((64, 80, 3), np.uint8)
    pixels[30:40, 30:50] = 255
    write_photo(tmp_path / "night.png", pixels)
    assert read_photo(Photo(tmp_path / "night.png"), 384).shape == (64, 80, 3)


def test_longer_side_is_at_most_the_limit(tmp_path):
    write_photo(tmp_path / "tall.png", np.full((200, 100, 3), 128, np.uint8))
    assert read_photo(Photo(tmp_path / "tall.png"), 64).shape == (64, 32, 3)


# Views.


def test_a_view_without_change_is_the_photo():
    pixels = ramp(96, 96)
    view = random_view(pixels, 96, STILL, np.random.default_rng(0))
    # Of at least the whole area: the box can only be the whole photo.
    assert np.array_equal(view, pixels)


def test_a_smaller_view_samples_the_middle_of_its_pixels():
    view = random_view(ramp(96, 96), 72, STILL, np.random.default_rng(0))
    expected = (np.arange(72) + 0.5) * 96 / 72 - 0.5
    assert np.abs(view[36, :, 0] - expected).max() <= 1
    assert np.abs(view[:, 36, 1] - expected).max() <= 1


def test_views_show_at_least_the_smallest_area():
    config = AugmentationConfig(min_area=0.25, max_rotation_deg=0.0, max_perspective=0.0)
    random = np.random.default_rng(0)
    for _ in range(50):
        view = random_view(ramp(200, 240), 64, config, random).astype(int)
        width, height = np.ptp(view[..., 0]) * 64 / 63, np.ptp(view[..., 1]) * 64 / 63
        assert 0.24 <= width * height / (200 * 240) <= 1.02
        assert 0.72 <= (width / 240) / (height / 200) <= 1.39


def test_views_are_never_mirrored():
    random = np.random.default_rng(1)
    for _ in range(50):
        view = random_view(ramp(200, 240), 64, AugmentationConfig(), random).astype(int)
        assert view[:, -8:, 0].mean() > view[:, :8, 0].mean()
        assert view[-8:, :, 1].mean() > view[:8, :, 1].mean()


def test_large_photos_are_shrunk_without_aliasing():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    view = random_view(stripes, 64, STILL, np.random.default_rng(0))
    assert np.abs(view.astype(int) - 128).max() <= 2


def test_same_generator_same_view():
    first, second = (
        random_view(ramp(80, 90), 48, AugmentationConfig(), np.random.default_rng(5))
        for _ in range(2)
    )
    assert np.array_equal(first, second)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_views_of_the_narrowest_photos_work(shape):
    pixels = np.full((*shape, 3), 77, np.uint8)
    view = random_view(pixels, 32, AugmentationConfig(), np.random.default_rng(0))
    assert np.array_equal(view, np.full((32, 32, 3), 77))


# Light.


def light(images, config, seed=0):
    seeds = seeds_of(seed, LIGHT, np.arange(len(images)))
    return change_light(images, config, Chance(seeds, torch.device("cpu")))


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 20, generator=torch.Generator().manual_seed(9)) * 1.6 - 0.8


def test_no_light_change_leaves_images_as_they_are(images):
    torch.testing.assert_close(light(images, DARK), images)


def test_light_changes_stay_in_range_and_follow_the_seed(images):
    config = AugmentationConfig(max_brightness=2.0)
    changed = light(images, config)
    assert changed.shape == images.shape
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert torch.equal(changed, light(images, config))
    assert not torch.equal(changed, light(images, config, seed=1))


def test_each_image_has_its_own_light(images):
    changed = light(images[:1].expand(4, -1, -1, -1), AugmentationConfig())
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 4


def test_blur_is_the_mean_of_nine(images):
    config = AugmentationConfig(
        max_brightness=0.0, max_contrast=0.0, max_colour=0.0, blur_probability=1.0, max_noise=0.0
    )
    expected = images[:, :, 4:7, 6:9].mean(dim=(2, 3))
    torch.testing.assert_close(light(images, config)[:, :, 5, 7], expected)


# The dataset.


def test_items_are_a_view_its_label_and_its_photo(root):
    views = Views(list_photos([PhotoFolder("town")], root), DataConfig(image_size=32))
    view, label, position = views[2]
    assert (view.shape, view.dtype) == ((3, 32, 32), torch.uint8)
    assert (label.item(), position.item(), label.dtype) == (1, 2, torch.int64)


def test_views_follow_torchs_seed(root):
    write_photo(root / "town/church/a.png", ramp(60, 80))
    views = Views(list_photos([PhotoFolder("town/church")], root), DataConfig(image_size=32))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(views[0][0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_unreadable_photos_are_left_out_and_logged(root, caplog):
    (root / "town/bridge/broken.jpg").write_bytes(b"no photo")
    listed = list_photos([PhotoFolder("town")], root)
    views = Views(listed, DataConfig(image_size=32))
    assert len(listed.photos) == 4
    assert len(views) == 3
    assert [photo.path.name for photo in views.photos] == ["a.png", "a.png", "b.png"]
    assert "broken.jpg" in caplog.text


def test_photos_out_of_memory_give_the_same_views(root):
    write_photo(root / "town/church/a.png", ramp(60, 80))
    drawn = []
    for in_memory in (True, False):
        config = DataConfig(image_size=32, keep_in_memory=in_memory)
        views = Views(list_photos([PhotoFolder("town")], root), config)
        torch.manual_seed(0)
        drawn.append(views[1])
        assert len(views.pixels) == (3 if in_memory else 0)
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"photos must be given by one of path, csv and gldv2, got \[\]"),
        ({"path": "a", "csv": "b"}, r"one of path, csv and gldv2, got \['path', 'csv'\]"),
        ({"path": "a", "part": "val"}, "part must be left out beside path; it belongs to gldv2"),
        ({"csv": "a", "labels": "instances"}, "labels must be left out beside csv"),
        ({"gldv2": "a", "images": "b"}, "images must be left out beside gldv2"),
    ],
)
def test_settings_of_different_kinds_do_not_mix(settings, message):
    with pytest.raises(ValueError, match=message):
        PhotoFolder(**settings)


def test_landmarks_are_read_at_every_visit_unless_told():
    landmarks = (PhotoFolder(gldv2="gldv2"),)
    assert not DataConfig(landmarks).is_in_memory
    assert DataConfig(landmarks, keep_in_memory=True).is_in_memory
    assert DataConfig((PhotoFolder("town"),)).is_in_memory


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            DataConfig,
            {"keep_in_memory": False, "views_on": "device"},
            "keep_in_memory must be true for views on the device",
        ),
        (AugmentationConfig, {"min_area": 0.0}, r"min_area must be in \(0, 1\], got 0.0"),
        (AugmentationConfig, {"max_aspect": 0.5}, "max_aspect must be at least 1, got 0.5"),
        (AugmentationConfig, {"max_perspective": 0.5}, "max_perspective must be in"),
        (AugmentationConfig, {"blur_probability": 2.0}, "blur_probability must be in"),
        (AugmentationConfig, {"max_noise": -1.0}, "max_noise must not be negative, got -1.0"),
        (DataConfig, {"image_size": 16}, "max_side and image_size must be at least 32"),
    ],
)
def test_settings_out_of_range_are_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)
