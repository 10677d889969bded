import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import TINY, draw_image

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.cli.app import app
from opendelg.errors import OpenDelgError
from opendelg.training import run as run_file
from opendelg.training.config import TrainingConfig, ValidationConfig
from opendelg.training.data import DataConfig
from opendelg.training.photos import PhotoFolder
from opendelg.training.validation import validate, validation_set
from opendelg.weights import read_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four groups of three photos, and their table."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["image,group,role"]
    for number in range(12):
        name = f"group{number % 4}/{number}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw_image((64, 56), number % 4).pixels).save(folder / name)
        rows.append(f"{name},g{number % 4},both")
    (folder / "groups.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A run that is validated twice, resumed in between."""
    config = TrainingConfig(
        name="tiny",
        output=str(tmp_path_factory.mktemp("run")),
        model=TINY,
        data=DataConfig((PhotoFolder(str(photos)),), image_size=32),
        steps=4,
        batch_size=4,
        num_workers=0,
        precision="32-true",
        checkpoint_every=2,
        validation=ValidationConfig(folders=(str(photos),), every=2),
    )
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(run_file, "keep_freed_memory", lambda: None)
        patch.setenv("PL_GLOBAL_SEED", "0")
        run_file.train(replace(config, steps=2))
        weights = run_file.train(config)
    return weights


def test_a_run_logs_both_stages_when_it_is_due(trained):
    entries = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    figures = [entry for entry in entries if "validation_verified_mAP" in entry]
    assert [entry["step"] for entry in figures] == [2, 4]
    assert all(0 < entry["validation_global_mAP"] <= 1 for entry in figures)


def test_the_best_model_is_kept_in_both_forms(trained, photos):
    best = trained.parent / "best.safetensors"
    dataset = validation_set(ValidationConfig(folders=(str(photos),)))
    entries = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    figures = [e["validation_verified_mAP"] for e in entries if "validation_verified_mAP" in e]
    assert validate(best, dataset)["validation_verified_mAP"] == pytest.approx(max(figures))
    saved = torch.load(trained.parent / "best.ckpt", weights_only=True)["state_dict"]
    expected = saved["model.backbone.conv1.weight"].numpy().astype(np.float16)
    np.testing.assert_array_equal(read_weights(best).state["backbone.conv1.weight"], expected)
    assert not (trained.parent / "candidate.safetensors").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["weights", "info", "{weights}"],
        ["extract", "{photos}", "--out", "{out}/features", "--model", "{weights}"],
        ["index", "{photos}", "--collection", "{out}/c", "--model", "{weights}"],
        [
            *("evaluate", "groups", "--csv", "{photos}/groups.csv"),
            *("--images", "{photos}", "--model", "{weights}"),
        ],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_reads_what_training_writes(trained, photos, tmp_path, arguments):
    values = {"weights": trained, "photos": photos, "out": tmp_path}
    called = [argument.format(**values) for argument in arguments]
    result = CliRunner().invoke(app, called, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_folders_and_table_give_the_same_set(photos):
    first = validation_set(ValidationConfig(folders=(photos.name,)), photos.parent)
    table = ValidationConfig(groups=f"{photos.name}/groups.csv", images=photos.name)
    second = validation_set(table, photos.parent)
    found = [
        {
            dataset.path(query): {dataset.path(p) for p in positives}
            for query, positives in zip(dataset.query_ids, dataset.positives, strict=True)
        }
        for dataset in (first, second)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 12


def test_at_most_so_many_photos_in_whole_groups(photos):
    config = ValidationConfig(folders=(str(photos),), max_photos=7)
    dataset = validation_set(config)
    assert len(dataset.names) == 6
    assert len(set(dataset.groups)) == 2
    assert all(len(positives) == 2 for positives in dataset.positives)
    assert validation_set(config).names == dataset.names


def test_photos_without_a_pair_are_an_error(photos, tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(draw_image((64, 56), number).pixels).save(tmp_path / f"{number}/a.png")
    with pytest.raises(OpenDelgError, match="a query must have database images of its group"):
        validation_set(ValidationConfig(folders=(str(tmp_path),)))


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(OpenDelgError, match="validation folder must be a directory"):
        validation_set(ValidationConfig(folders=("nowhere",)), tmp_path)
