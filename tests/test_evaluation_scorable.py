import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opendelg.errors import FormatError
from opendelg.evaluation.comparison import Side, compare_stages
from opendelg.evaluation.failures import find_failures
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.evaluation.scoring import measures, report, stages
from tests.run_samples import PROTOCOLS, RECIPE, ids, make_run, unverified, verified

Delg = Callable[..., SimpleNamespace]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_saved_run_of_any_protocol_gives_the_same_figures(protocol: str, tmp_path: Path) -> None:
    run = make_run(protocol)
    write_run(tmp_path / "run.zip", run)
    again = read_run(tmp_path / "run.zip")
    assert str(report(again)) == str(report(run))  # NaN is not equal to itself
    assert {stage: str(row) for stage, row in measures(again).items()} == {
        stage: str(row) for stage, row in measures(run).items()
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_stage_of_any_protocol_is_compared_and_its_failures_are_found(protocol: str) -> None:
    run = make_run(protocol)
    for stage in stages(run):
        found = compare_stages(Side(run, stage), Side(run, stages(run)[0]))
        assert found.figures
        for measure in measures(run)[stage]:
            assert find_failures(run, stage, measure, 3).num_scored > 0


def changed(protocol: str, **changes: Any) -> Run:
    return replace(make_run(protocol), **changes)


def with_extra(protocol: str, **arrays: np.ndarray) -> Run:
    run = make_run(protocol)
    return replace(run, extra={**run.extra, **arrays})


def with_first(ranking: object, protocol: str = "groups") -> Run:
    return changed(protocol, stages={"global": (ranking, unverified(1), unverified(1))})


NAN = np.float32("nan")
BOXES = np.array([[0, 0, 9, 9]] * 3, np.float64)
UNSCORABLE = {
    "other truth": (changed("groups", truth={"hard": (ids(),) * 3}), r"\['hard'\] instead of"),
    "no truth": (changed("gldv2-retrieval", truth={}), r"ground truth \[\] instead of"),
    "one level": (changed("roxford5k", truth={"easy": (ids(),) * 3}), "instead of"),
    "database": (changed("groups", num_database=-1), "-1 database images"),
    "rank": (changed("groups", num_database=5), "a rank beyond the 5 database images"),
    "NaN": (with_first(replace(unverified(1), similarities=np.array([NAN]))), "not finite"),
    "gap": (with_first(replace(unverified(1, 2), positions=ids(0, 2))), "rankings with gaps"),
    "inliers": (with_first(verified([1], [-2])), "inliers below -1 at stage 'global'"),
    "twice ranked": (with_first(unverified(1, 2, 1)), "image twice for one query in the rankings"),
    "twice right": (changed("places", truth={"positives": (ids(1, 1), ids(), ids())}), "twice"),
    "no name": (changed("groups", names={}), "no name of image 0"),
    "half a stage": (
        changed("rparis6k", stages={"official easy": (unverified(1),) * 3}),
        r"stages \['official easy'\], neither for all levels nor for each",
    ),
    "both lists": (
        changed("rparis6k", truth=dict.fromkeys(("easy", "hard", "junk"), (ids(1),) * 3)),
        "an image twice for one query in the ground truth",
    ),
    "no boxes": (changed("roxford5k", extra={}), "no array 'boxes'"),
    "boxes": (with_extra("roxford5k", boxes=BOXES[:2]), r"array 'boxes' of shape \(2, 4\)"),
    "box": (with_extra("roxford5k", boxes=-BOXES), "boxes of no area"),
    "no usages": (changed("gldv2-retrieval", extra={}), "no array 'usages'"),
    "usages": (with_extra("gldv2-retrieval", usages=ids(0, 1, 2)), "other than public"),
    "texts": (with_extra("gldv2-retrieval", usages=np.array(["0"] * 3)), "array 'usages' of"),
    "query twice": (
        with_extra("gldv2-recognition", image_ids=np.array([1, 1, 2], np.uint64)),
        "an image that is two queries",
    ),
    "no label": (with_extra("gldv2-recognition", labelled_ids=ids(0, 1, 2, 3, 4, 9)), "landmark"),
    "no landmark": (with_extra("gldv2-recognition", labels=ids(*[-1] * 6)), "their landmark"),
    "vote": (changed("gldv2-recognition", about=RECIPE), "no vote.max_inliers"),
    "no inlier counts": (
        changed("gldv2-recognition", about={"vote": {"max_inliers": 0}}),
        "max_inliers below 1",
    ),
    "about": (changed("places", about={"dataset": ["utm"]}), "no dataset.name in what made it"),
    "settings": (changed("groups", about={"search": {"verification": 1}}), "search.verification"),
}


@pytest.mark.parametrize("name", UNSCORABLE)
def test_a_run_that_cannot_be_scored_is_an_error_that_says_why(name: str, tmp_path: Path) -> None:
    run, message = UNSCORABLE[name]
    write_run(tmp_path / "run.zip", run)
    with pytest.raises(FormatError, match=rf"`--save-run` wrote, got .*{message}.*evaluate again"):
        read_run(tmp_path / "run.zip")


def test_a_challenge_without_ground_truth_is_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run.zip", changed("places", truth={}))
    assert stages(read_run(tmp_path / "run.zip")) == []


def with_member(source: Path, name: str, content: bytes | None) -> Path:
    """The run with another member, or without it."""
    target = source.with_name("bad.zip")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for known in old.namelist():
            if known != name:
                new.writestr(known, old.read(known))
        if content is not None:
            new.writestr(name, content)
    return target


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array)
    return content.getvalue()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_without_any_of_its_parts_is_an_error(protocol: str, tmp_path: Path) -> None:
    saved = tmp_path / "run.zip"
    write_run(saved, make_run(protocol))
    with zipfile.ZipFile(saved) as file:
        names = file.namelist()
    for name in names:
        with pytest.raises(FormatError, match=rf"no item named '{name}'"):
            read_run(with_member(saved, name, None))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(npy(np.arange(11).reshape(1, 11)), id="shape"),
        pytest.param(npy(np.arange(11.0)), id="dtype"),
        pytest.param(npy(np.arange(9)), id="short"),
        pytest.param(npy(np.array(3)), id="no array"),
        pytest.param(npy(np.array([{}] * 11)), id="objects"),
        pytest.param(npy(np.arange(11)).replace(b"(11,)", b"((((("), id="header"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_run_with_other_arrays_is_an_error(content: bytes, tmp_path: Path) -> None:
    write_run(tmp_path / "run.zip", make_run("groups"))
    with pytest.raises(FormatError, match=r"must be a whole file"):
        read_run(with_member(tmp_path / "run.zip", "stages/global/ids.npy", content))


@pytest.mark.parametrize("command", ["rescore", "compare", "failures"])
@pytest.mark.parametrize("content", [b"PK", b"{}"])
def test_commands_say_what_is_wrong_with_a_run(
    command: str, content: bytes, tmp_path: Path, delg: Delg
) -> None:
    saved = tmp_path / "run.zip"
    write_run(saved, make_run("groups"))
    path = with_member(saved, "run.json", content)
    options = ["--images", tmp_path, "--out", tmp_path / "o"] if command == "failures" else []
    found = delg("evaluate", command, path, *options)
    assert found.code == 1
    assert found.err.startswith("delg: error: run must be a whole file that `--save-run` wrote")


# Landmarks are numbers of their own, and not of images.


def test_landmarks_are_compared_as_landmarks() -> None:
    run = make_run("gldv2-recognition")
    other = replace(run, names={number: f"moved/{number}.jpg" for number in range(6)})
    # Landmark 3 has the number of a database image, which has another name in the other run.
    assert compare_stages(Side(run, "global"), Side(other, "global")).num_queries == 3


def test_failures_do_not_count_the_images_of_a_landmark() -> None:
    run = make_run("gldv2-recognition")
    run = replace(run, truth={"landmarks": (ids(99), ids(3, 8), ids())})
    (failure,) = find_failures(run, "global", "accuracy public", 3).worst
    assert (failure.query, failure.num_positives, failure.first_right) == (0, None, None)


@pytest.mark.parametrize("command", ["rescore", "compare"])
def test_a_run_cannot_write_to_the_terminal(command: str, tmp_path: Path, delg: Delg) -> None:
    write_run(tmp_path / "run.zip", changed("groups", notes=("\x1b[2Jnothing to see",)))
    found = delg("evaluate", command, tmp_path / "run.zip")
    assert found.out.splitlines()[-1] == r"note: \x1b[2Jnothing to see"
