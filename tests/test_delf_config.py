import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from opendelg.collection import Collection
from opendelg.delf_config import read_delf_config
from opendelg.errors import FormatError
from opendelg.extraction import PROFILES
from opendelg.feature_files import read_delg_local
from opendelg.weights import Weights
from tests.test_cli_extract import draw

Run = Callable[..., SimpleNamespace]

# SPEC 3.5: the five official files differ in these two values only.
OFFICIAL = {
    "delg_gld_20200520": (175.0, "r50-gld-20200520"),
    "r50delg_gld_20200814": (175.0, "r50-gld"),
    "r101delg_gld_20200814": (166.1, "r101-gld"),
    "r50delg_gldv2clean_20200914": (454.6, "r50-gldv2clean"),
    "r101delg_gldv2clean_20200914": (357.48, "r101-gldv2clean"),
}
TEXT = """
use_local_features: true
use_global_features: true
model_path: "parameters/{model}"
image_scales: 0.25
image_scales: 0.35355338
image_scales: 0.5
image_scales: 0.70710677
image_scales: 1.0
image_scales: 1.4142135
image_scales: 2.0
delf_local_config {{
  use_pca: false
  max_feature_num: 1000
  score_threshold: {threshold}
}}
delf_global_config {{
  use_pca: false
  image_scales_ind: 3
  image_scales_ind: 4
  image_scales_ind: 5
}}
max_image_size: 1024
"""
GOOD = TEXT.format(model="r50delg_gld_20200814", threshold=175.0)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a settings file, with replacements in the good one: ``write(("old", "new"))``."""

    def write_file(*changes: tuple[str, str], text: str = GOOD) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "config.pbtxt").write_text(text)
        return tmp_path / "config.pbtxt"

    return write_file


@pytest.mark.parametrize("model", OFFICIAL)
def test_the_official_files_are_the_paper_profile_with_a_threshold(
    write: Callable[..., Path], model: str
) -> None:
    threshold, name = OFFICIAL[model]
    config = read_delf_config(write(text=TEXT.format(model=model, threshold=threshold)))
    assert config.extraction == replace(PROFILES["paper"], score_threshold=threshold)
    assert (config.model, config.want_local, config.want_global) == (name, True, True)
    assert not config.is_tf2_exported


def test_other_paths_stay_paths(write: Callable[..., Path]) -> None:
    text = TEXT.format(model="x", threshold=1).replace("parameters/x", "my/model.safetensors")
    assert read_delf_config(write(text=text)).model == "my/model.safetensors"


def test_what_is_absent_has_the_official_default(write: Callable[..., Path]) -> None:
    text = 'model_path: "m" image_scales: [1, 2] delf_local_config { use_pca: false }'
    config = read_delf_config(write(text=text))
    assert (config.extraction.max_size, config.extraction.min_size) == (-1, -1)
    assert config.extraction.score_threshold == 100
    assert config.extraction.max_keypoints == 1000
    # Without image_scales_ind, all scales count.
    assert config.extraction.global_scales == (1, 2)
    assert (config.want_local, config.want_global) == (True, False)


def test_without_local_features_none_are_kept(write: Callable[..., Path]) -> None:
    config = read_delf_config(write(("use_local_features: true", "use_local_features: false")))
    assert (config.want_local, config.extraction.max_keypoints) == (False, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_image_size", "max_image_sice", "max_image_sice.*did you mean 'max_image_size'"),
        ("image_scales: 2.0", "max_feature_num: 1", "it belongs in another block"),
        ("max_feature_num", "max_features", 'no field named "max_features"'),
        ("model_path:", 'model_path: "a" model_path:', 'multiple "model_path"'),
        ("1024", "many", "many"),
        ("1024", "1e400", "1e400"),
        ("delf_local_config {", "delf_local_config", "must be text of a DelfConfig"),
        ("0.35355338", "0", r"scales must be distinct numbers in \(0, 8\]"),
        ("0.35355338", "0.25", "scales must be distinct numbers"),
        ("0.35355338", "nan", "scales must be distinct numbers"),
        ("1024", "5", "max_size must be -1 or at least 10, got 5"),
        ("1000", "-1", "max_keypoints must be at least 0"),
        ("175.0", "-2", r"score_threshold must be in \[0, inf\)"),
        ("175.0", "inf", r"score_threshold must be in \[0, inf\)"),
        ("image_scales_ind: 5", "image_scales_ind: 7", "got image_scales_ind 7"),
        ("image_scales_ind: 5", "image_scales_ind: -1", "got image_scales_ind -1"),
        ("use_pca: false\n  max", "use_pca: true\n  max", "got use_pca true of local features"),
        ("use_pca: false\n  max", "max", "got use_pca true of local features"),
        ("use_pca: false\n  image", "image", "got use_pca true of global features"),
        ("use_pca: false\n  max", "use_pca: false iou_threshold: 0.5 max", "iou_threshold 0.5"),
        ("max_image", "use_square_images: true max_image", "use_square_images true"),
        (
            "use_pca: false\n  max",
            "use_pca: false use_resized_coordinates: true max",
            "use_resized_coordinates true",
        ),
        (GOOD, 'model_path: "m"', "got no image_scales; use_pca true of local features in"),
        (
            "use_local_features: true\nuse_global_features: true",
            "use_local_features: false",
            "neither local nor global features",
        ),
    ],
)
def test_mistakes_are_named(write: Callable[..., Path], old: str, new: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as raised:
        read_delf_config(write((old, new)))
    assert "config.pbtxt" in str(raised.value)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    for data in (b"\xff\xfe", b"\0" * 10, b"a" * (2 << 20)):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="settings file must"):
            read_delf_config(path)


# -- the commands ----------------------------------------------------------------------------


def test_extract_follows_the_settings(
    delg: Run, tiny_weights: Weights, write: Callable[..., Path], tmp_path: Path
) -> None:
    config = write(("175.0", "0"), ("1000", "7"))
    image = draw(tmp_path / "p" / "a.png")
    options = ["--config", config, "--model", tiny_weights.path, "--format", "delg", "--json"]
    assert delg("extract", image, "--out", tmp_path / "f", *options).json["written"] == 1
    assert len(read_delg_local(tmp_path / "f" / "a.delg_local")) == 7
    # The threshold is part of the recipe.
    write(("175.0", "0.125"), ("1000", "7"))
    result = delg("extract", image, "--out", tmp_path / "f", *options)
    assert "extraction.score_threshold 0.125 instead of 0.0" in result.err


@pytest.mark.parametrize("format", ["delg", "h5", "kapture"])
def test_only_what_is_asked_for_is_written(
    delg: Run, tiny_weights: Weights, write: Callable[..., Path], tmp_path: Path, format: str
) -> None:
    image = draw(tmp_path / "p" / "a.png")
    asked = {
        "local": write(("175.0", "0"), ("use_global_features: true", "")).rename(tmp_path / "l"),
        "global": write(("use_local_features: true", "use_local_features: false")),
    }
    suffixes = {}
    for kind, config in asked.items():
        out = tmp_path / kind
        options = ["--config", config, "--model", tiny_weights.path, "--format", format, "--json"]
        assert delg("extract", image, "--out", out, *options).json["written"] == 1
        assert delg("extract", image, "--out", out, *options).json["kept"] == 1
        suffixes[kind] = {path.name for path in out.rglob("*") if path.is_file()}
    assert suffixes["local"] & suffixes["global"] == (
        {"recipe.json", ".lock"} if format == "h5" else {"recipe.json"}
    )
    assert len(suffixes["local"]) > 1
    assert len(suffixes["global"]) > 1


def test_the_model_path_names_the_weights(
    delg: Run,
    tiny_weights: Weights,
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENDELG_CACHE", str(tmp_path))
    downloaded = tmp_path / "r50-gld.safetensors"
    shutil.copyfile(tiny_weights.path, downloaded)
    image = draw(tmp_path / "p" / "a.png")
    arguments = ["extract", image, "--out", tmp_path / "f", "--config", write(), "--json"]
    assert delg(*arguments).json["written"] == 1
    downloaded.unlink()
    assert "`delg weights download r50-gld` fetches it" in delg(*arguments).err


def test_the_export_must_be_that_of_the_weights(
    delg: Run, make_weights: Callable[..., Weights], write: Callable[..., Path], tmp_path: Path
) -> None:
    from tests.conftest import TINY

    legacy = make_weights(replace(TINY, resize_rule="legacy"))
    config = write(
        ("parameters/r50delg_gld_20200814", str(legacy.path)),
        ("max_image", "is_tf2_exported: true max_image"),
    )
    image = draw(tmp_path / "p" / "a.png")
    result = delg("extract", image, "--out", tmp_path / "f", "--config", config)
    assert (result.code, "is_tf2_exported must be false for 'tiny'" in result.err) == (1, True)


def test_index_follows_the_settings(
    delg: Run, tiny_weights: Weights, write: Callable[..., Path], tmp_path: Path
) -> None:
    draw(tmp_path / "p" / "a.png")
    folder = tmp_path / "c.delg"
    options = ["--collection", folder, "--config", write(), "--model", tiny_weights.path]
    assert delg("index", tmp_path / "p", *options, "--json").json["added"] == 1
    with Collection.open(folder, read_only=True) as collection:
        assert collection.recipe.extraction["score_threshold"] == 175
    assert delg("index", tmp_path / "p", *options, "--json").json["unchanged"] == 1
    write(("175.0", "200"))
    assert "score_threshold 200.0 instead of 175.0" in delg("index", tmp_path / "p", *options).err


def test_an_index_needs_global_features(
    delg: Run, tiny_weights: Weights, write: Callable[..., Path], tmp_path: Path
) -> None:
    image = draw(tmp_path / "p" / "a.png")
    config = write(("use_global_features: true", ""))
    result = delg("index", image, "--collection", tmp_path / "c.delg", "--config", config)
    assert (result.code, "use_global_features must be true" in result.err) == (1, True)
    assert not (tmp_path / "c.delg").exists()


def test_settings_and_a_profile_are_too_much(
    delg: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = ["--out", tmp_path / "f", "--config", write(), "--profile", "fast"]
    result = delg("extract", draw(tmp_path / "p" / "a.png"), *arguments)
    assert (result.code, "config must be given without --profile" in result.err) == (2, True)


def test_no_features_of_either_kind_are_refused(write: Callable[..., Path]) -> None:
    none = write(("num: 1000", "num: 0"), ("use_global_features: true", ""))
    with pytest.raises(FormatError, match="neither local nor global features"):
        read_delf_config(none)


def test_without_a_model_path_the_option_must_name_the_weights(
    delg: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    config = write(('model_path: "parameters/r50delg_gld_20200814"', ""))
    image = draw(tmp_path / "p" / "a.png")
    result = delg("extract", image, "--out", tmp_path / "f", "--config", config)
    assert (result.code, "got no model_path in the settings file" in result.err) == (2, True)
