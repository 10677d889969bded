"""Training on a made-up Google Landmarks v2, from its tars to weights."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tests.landmark_samples import make_download, member_name

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.errors import OpenDelgError
from opendelg.training import run as run_file
from opendelg.training.config import OptimiserConfig, TrainingConfig
from opendelg.training.data import DataConfig, Views
from opendelg.training.photos import PhotoFolder, list_photos
from opendelg.weights import read_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    return make_download(tmp_path_factory.mktemp("gldv2"))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Leave the allocator and the random state of the other tests alone."""
    monkeypatch.setattr(run_file, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    with torch.random.fork_rng():
        yield


@pytest.fixture
def config(download, tmp_path):
    return TrainingConfig(
        name="tiny",
        output=str(tmp_path / "run"),
        model=TINY,
        data=DataConfig((PhotoFolder(gldv2=str(download.folder)),), image_size=32),
        optimiser=OptimiserConfig(kind="adamw", learning_rate=0.01),
        steps=3,
        batch_size=16,
        num_workers=0,
        precision="32-true",
        checkpoint_every=3,
    )


def listed(download, **settings):
    return list_photos([PhotoFolder(gldv2=str(download.folder), **settings)])


def ids(photo_list):
    return {photo.path.stem for photo in photo_list.photos}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_trains_and_resumes(config, num_workers):
    config = replace(config, num_workers=num_workers)
    weights = read_weights(run_file.train(config))
    assert weights.training["classes"] == 200
    run_file.train(replace(config, steps=6))
    saved = torch.load(f"{config.output}/last.ckpt", weights_only=True)
    assert saved["global_step"] == 6


def test_the_audit_counts_the_faults(config, download, caplog):
    with caplog.at_level(logging.INFO):
        run_file.train(replace(config, steps=1))
    with open(f"{config.output}/audit.json", encoding="utf-8") as file:
        audit = json.load(file)
    (section,) = audit["sections"]
    counts = {name: fault["count"] for name, fault in section["faults"].items()}
    train = ids(listed(download))
    assert counts == {
        "malformed_rows": 5,
        "repeated_images": 1,
        "images_with_two_labels": 1,
        "missing_images": counts["missing_images"],
        "damaged_tars": 1,
    }
    assert 0 < counts["missing_images"] < len(download.missing)  # the others are held out
    assert (audit["photos"], audit["classes"]) == (len(train), 200)
    # A landmark of one image is held out whole.
    assert audit["classes_without_photos"] >= sum(len(i) == 1 for i in download.images.values())
    assert audit["unreadable"] == {"tried": len(train), "count": len(train & download.broken)}
    assert len(section["split_hash"]) == 64
    for text in ("classes have no photo", "malformed rows, the first line 8", "images_003.tar"):
        assert text in caplog.text


def test_both_parts_together_are_what_is_listed_and_there(download):
    train, val = (ids(listed(download, part=part)) for part in ("train", "val"))
    everything = {image_id for images in download.images.values() for image_id in images}
    assert not train & val
    assert train | val == everything - download.missing - download.disputed


def test_both_parts_have_the_same_labels(download):
    folders = [PhotoFolder(gldv2=str(download.folder), part=part) for part in ("train", "val")]
    both = list_photos(folders)
    assert len(both.class_names) == 200
    landmark_of = {i: landmark for landmark, images in download.images.items() for i in images}
    names = [both.class_names[label].rpartition(": ")[2] for label in both.labels]
    assert names == [str(landmark_of[photo.path.stem]) for photo in both.photos]


def test_tars_and_unpacked_images_give_the_same_views(download, tmp_path):
    photos = listed(download).photos
    for photo in photos:
        path = tmp_path / member_name(photo.path.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.member.read())
    (tmp_path / "train_clean.csv").write_bytes(
        (download.folder / "train" / "train_clean.csv").read_bytes()
    )
    drawn = []
    for folder in (download.folder, tmp_path):
        section = PhotoFolder(gldv2=str(folder))
        views = Views(list_photos([section]), DataConfig((section,), image_size=32))
        torch.manual_seed(0)
        drawn.append([views[n][0] for n in range(0, len(views), 20)])
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))


def test_a_broken_image_is_replaced_by_one_of_its_class(download, caplog):
    found = listed(download)
    views = Views(found, DataConfig((PhotoFolder(gldv2="x"),), image_size=32))
    is_broken = [photo.path.stem in download.broken for photo in found.photos]
    readable = np.bincount(found.labels, np.logical_not(is_broken))
    position = next(n for n in np.flatnonzero(is_broken).tolist() if readable[found.labels[n]] > 0)
    _, label, replacement = views[position]
    views[position]
    assert label == found.labels[position]
    assert found.labels[replacement] == label
    assert replacement != position
    assert caplog.text.count(found.photos[position].path.stem) == 1
    assert views.num_unreadable >= 1


def test_if_no_image_can_be_read_the_run_ends_with_an_error(download, monkeypatch):
    views = Views(listed(download), DataConfig((PhotoFolder(gldv2="x"),), image_size=32))
    monkeypatch.setattr(views, "read", lambda _: None)
    with pytest.raises(OpenDelgError, match="photos must be readable"):
        views[0]


def test_workers_count_unreadable_images_together(config, download, monkeypatch):
    monkeypatch.setattr("opendelg.training.audit.NUM_SAMPLED", 1)
    steps = len(listed(download).photos) // 16
    weights = read_weights(run_file.train(replace(config, steps=steps, num_workers=2)))
    assert weights.training["unreadable"] > 5


def test_resuming_with_other_landmarks_is_an_error(config, download, tmp_path):
    run_file.train(replace(config, steps=1, checkpoint_every=1))
    text = (download.folder / "train" / "train_clean.csv").read_text()
    (download.folder / "other.csv").write_text(text.replace("\n3,", "\n4,"))
    data = DataConfig((PhotoFolder(gldv2=str(download.folder), list="other.csv"),), image_size=32)
    with pytest.raises(OpenDelgError, match="classes must stay what they were"):
        run_file.train(replace(config, data=data, steps=2))


def test_the_tar_index_goes_to_the_output_if_the_download_is_read_only(
    download, tmp_path, monkeypatch
):
    monkeypatch.setattr("os.access", lambda *_: False)
    list_photos([PhotoFolder(gldv2=str(download.folder))], cache=tmp_path / "run")
    assert (tmp_path / "run" / "tar_index.npz").is_file()


def test_without_the_list_the_error_names_it(tmp_path):
    with pytest.raises(OpenDelgError, match=r"gldv2 must hold 'train_clean.csv'"):
        list_photos([PhotoFolder(gldv2=str(tmp_path))])


def test_without_images_the_error_counts_what_is_missing(tmp_path):
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n1,{'a' * 16} {'b' * 16}\n")
    with pytest.raises(OpenDelgError, match=r"got none in .* 1 missing images"):
        list_photos([PhotoFolder(gldv2=str(tmp_path))])
