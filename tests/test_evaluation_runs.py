import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from opendelg.errors import FormatError, OpenDelgError
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, mentioned_ids, read_run, write_run
from opendelg.evaluation.scoring import measures, report


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def make_run(protocol: str = "groups") -> Run:
    first = Ranking.whole(ids(3, 1, 2), np.float32([0.9, 0.5, 0.1]))
    second = Ranking.whole(ids(), np.float32([]))
    return Run(
        protocol=protocol,
        queries=("a.png", "b\udcff.png"),
        names={1: "one", 2: "two", 3: "three"},
        num_database=3,
        truth={"positives": (ids(1), ids())},
        stages={"global": (first, second)},
        about={"model": {"name": "starter"}},
        notes=("a subset",),
        extra={"landmarks": ids(5, 6)},
    )


def contents(run: Run) -> list[object]:
    rankings = [
        [getattr(r, name).tolist() for name in ("ids", "positions", "similarities", "num_inliers")]
        for rankings in run.stages.values()
        for r in rankings
    ]
    truth = [ids_.tolist() for lists in run.truth.values() for ids_ in lists]
    extra = {name: array.tolist() for name, array in run.extra.items()}
    plain = [run.protocol, run.queries, dict(run.names), run.num_database, run.about, run.notes]
    return [*plain, list(run.truth), truth, list(run.stages), rankings, extra]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run.zip", make_run())
    assert contents(read_run(tmp_path / "run.zip")) == contents(make_run())


def test_equal_runs_are_equal_files(tmp_path: Path) -> None:
    write_run(tmp_path / "a.zip", make_run())
    write_run(tmp_path / "b.zip", make_run())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_run_is_scored_as_before(tmp_path: Path) -> None:
    write_run(tmp_path / "run.zip", make_run())
    again = read_run(tmp_path / "run.zip")
    assert report(again) == report(make_run())
    assert report(again).figures["global"]["mAP"] == 0.5
    assert np.isnan(measures(again)["global"]["mAP"]).tolist() == [False, True]


def test_notes_are_printed_with_the_figures() -> None:
    lines = report(make_run()).lines()
    assert lines[-1] == "note: a subset"
    assert lines[2].split() == ["global", "50.00", "0.00", "100.00", "100.00"]


def test_all_images_in_truth_and_rankings_are_named() -> None:
    run = make_run()
    assert mentioned_ids(run.truth, run.stages).tolist() == [1, 2, 3]
    assert mentioned_ids({}, {}).tolist() == []


def test_a_protocol_of_another_version_is_an_error() -> None:
    with pytest.raises(OpenDelgError, match="must be one that this version evaluates, got 'x'"):
        report(make_run("x"))


@pytest.mark.parametrize("part", ["truth", "stages"])
def test_every_query_has_an_entry(part: str) -> None:
    fields = dict(vars(make_run()))
    fields[part] = {label: lists[:1] for label, lists in fields[part].items()}
    with pytest.raises(ValueError, match=f"{part} must have one entry per query, got 1 for 2"):
        Run(**fields)


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """The run with other values in its header."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "run.json":
                content = json.dumps(json.loads(content) | changes).encode()
            new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"version": 2}, "must be of version 1, got 2", id="version"),
        pytest.param({"format": "x"}, "format 'x'", id="format"),
        pytest.param({"queries": ["a"]}, "of 2 entries|of 3 entries|of 1 entries", id="queries"),
        pytest.param({"stages": ["none"]}, "stages/none", id="stage"),
        pytest.param({"names": [1]}, "must be a whole file", id="names"),
    ],
)
def test_a_header_that_does_not_fit_is_an_error(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write_run(tmp_path / "run.zip", make_run())
    with pytest.raises(FormatError, match=message):
        read_run(rewritten(tmp_path / "run.zip", tmp_path / "bad.zip", **changes))


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    write_run(tmp_path / "run.zip", make_run())
    content = (tmp_path / "run.zip").read_bytes()
    for start in range(0, len(content), 7):
        (tmp_path / "bad.zip").write_bytes(content[:start] + b"\xff" + content[start + 1 :])
        try:
            read_run(tmp_path / "bad.zip")
        except FormatError:
            continue


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.zip").write_bytes(content)
    with pytest.raises(FormatError, match=r"whole file that `--save-run` wrote.*run\.zip"):
        read_run(tmp_path / "run.zip")


def test_an_absent_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run must be an existing file"):
        read_run(tmp_path / "run.zip")
