import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.errors import OpenDelgError
from opendelg.evaluation import comparison as module
from opendelg.evaluation.comparison import (
    Comparison,
    Side,
    compare_stages,
    differences,
    write_changes,
)
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, write_run
from opendelg.metrics.bootstrap import Statistic

NAMES = {1: "one", 2: "two", 3: "three", 4: "four"}


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def ranking(*order: int) -> Ranking:
    return Ranking.whole(ids(*order), np.linspace(1, 0, len(order), dtype=np.float32))


def make_run(**changes: object) -> Run:
    """Three queries, the last without positives: AP 1, 1/2 and 1/2, 1 after verification."""
    run = Run(
        protocol="groups",
        queries=("a", "b", "c"),
        names=NAMES,
        num_database=4,
        truth={"positives": (ids(1), ids(2), ids())},
        stages={
            "global": (ranking(1, 2, 3), ranking(1, 2, 3), ranking(1, 2, 3)),
            "verified": (ranking(2, 1, 3), ranking(2, 1, 3), ranking(2, 1, 3)),
        },
        about={"date": "today", "model": {"name": "starter", "sha256": "12"}},
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def of_runs(first: Run, second: Run, stage: str = "global") -> Comparison:
    return compare_stages(Side(first, stage), Side(second, stage))


def test_stages_of_a_run_are_compared_by_hand() -> None:
    run = make_run()
    found = compare_stages(Side(run, "global"), Side(run, "verified")).figure("mAP")
    assert (found.first, found.second, found.difference.value) == (0.75, 0.75, 0.0)
    assert (found.num_better, found.num_equal, found.num_worse) == (1, 0, 1)
    assert [(c.query, c.difference) for c in found.largest_changes()] == [("a", -0.5), ("b", 0.5)]


def test_a_run_equals_itself() -> None:
    found = of_runs(make_run(), make_run())
    assert {f.num_equal for f in found.figures} == {2}
    assert {(f.difference.low, f.difference.high) for f in found.figures} == {(0.0, 0.0)}
    assert found.made_by == {}
    assert found.notes == ()


def test_queries_that_did_not_change_are_left_out() -> None:
    better = make_run(stages={"global": (ranking(1, 2, 3), ranking(2, 1, 3), ranking(1))})
    found = of_runs(make_run(), better).figure("mAP")
    assert [(c.query, c.first, c.second) for c in found.largest_changes()] == [("b", 0.5, 1.0)]


def test_queries_are_matched_by_name_in_any_order() -> None:
    run = make_run()
    turned = make_run(
        queries=("c", "b", "a"),
        truth={"positives": run.truth["positives"][::-1]},
        stages={"global": run.stages["global"][::-1]},
    )
    assert of_runs(run, turned).figure("mAP").num_equal == 2


def test_images_are_matched_by_name_where_ids_differ() -> None:
    renumbered = make_run(
        names={11: "one", 12: "two", 13: "three"},
        truth={"positives": (ids(11), ids(12), ids())},
        stages={"global": (ranking(11, 12), ranking(12, 11), ranking(11))},
    )
    assert of_runs(make_run(), renumbered).figure("mAP").second == 1.0


def test_only_common_queries_count_and_it_is_said() -> None:
    run = make_run()
    fewer = make_run(
        queries=("b",),
        truth={"positives": (ids(2),)},
        stages={"global": (ranking(2, 1),)},
    )
    found = of_runs(run, fewer)
    assert (found.num_queries, found.figure("mAP").first) == (1, 0.5)
    assert found.notes == ("2 of 3 queries of the first run are not in the other: left out here",)


def test_other_truth_is_an_error_that_names_the_query() -> None:
    other = make_run(truth={"positives": (ids(1), ids(2, 3), ids())})
    with pytest.raises(OpenDelgError, match=r"0 only in the first and 1 only in the .* for 'b'"):
        of_runs(make_run(), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"protocol": "x"}, "of one protocol, got 'groups' and 'x'", id="protocol"),
        pytest.param({"queries": ("d", "e", "f")}, "got none of 3 and 3", id="no common query"),
        pytest.param({"queries": ("a", "a", "b")}, "got 2 names for 3", id="names twice"),
        pytest.param({"truth": {}}, r"one ground truth, got \['positives'\] and \[\]", id="truth"),
        pytest.param({"stages": {}}, "stage must be one of , got 'global'", id="stage"),
    ],
)
def test_runs_that_cannot_be_compared(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OpenDelgError, match=message):
        of_runs(make_run(), make_run(**changes))


def test_other_databases_are_said_and_notes_are_kept() -> None:
    second = make_run(num_database=9, notes=("a subset",))
    assert of_runs(make_run(notes=("a subset",)), second).notes == (
        "the databases differ: 4 images in the first, 9 in the second",
        "a subset",
    )


def test_what_made_them_is_listed_only_where_it_differs() -> None:
    first = {"date": "1", "search": {"rerank": 100, "verification": {"mode": "paper"}}, "old": 1}
    second = {"date": "2", "search": {"rerank": 100, "verification": {"mode": "standard"}}}
    assert differences(first, second) == {
        "search.verification.mode": ("paper", "standard"),
        "old": (1, None),
    }


def test_figures_that_are_no_means_are_computed_of_the_matched_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"first": np.array([0.1, 0.9, 0.3]), "second": np.array([0.3, 0.9, 0.2])}

    def largest(of: np.ndarray) -> Statistic:
        return lambda chosen: of[chosen].max(axis=1)

    def pooled(run: Run) -> dict[str, dict[str, Statistic]]:
        return {"global": {"GAP": largest(values[run.about["which"]])}}

    monkeypatch.setattr(module, "pooled", pooled)
    first = make_run(about={"which": "first"})
    # Its queries are in another order, and the one with the largest value is not in the first.
    second = make_run(
        about={"which": "second"},
        queries=("b", "d", "a"),
        truth={"positives": (ids(2), ids(4), ids(1))},
    )
    found = of_runs(first, second).figure("GAP")
    assert (found.first, found.second) == (0.9, 0.3)
    assert found.difference.value == pytest.approx(-0.6)
    assert (found.difference.low, found.difference.high) == pytest.approx((-0.6, 0.1))
    with pytest.raises(OpenDelgError, match="must be a mean over queries, got 'GAP'"):
        write_changes(Path("unused.csv"), found)


def test_all_queries_are_written_whatever_their_names_are(tmp_path: Path) -> None:
    named = make_run(queries=('q,"1"\n', "b\udcff.png", "c"))
    figure = compare_stages(Side(named, "global"), Side(named, "verified")).figure("mAP")
    write_changes(tmp_path / "c.csv", figure)
    assert b"b\xff.png" in (tmp_path / "c.csv").read_bytes()
    text = (tmp_path / "c.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert list(csv.reader(text.splitlines(keepends=True))) == [
        ["query", "first", "second", "difference"],
        ["b\udcff.png", "0.500000", "1.000000", "0.500000"],
        ['q,"1"\n', "1.000000", "0.500000", "-0.500000"],
    ]


Command = Callable[..., SimpleNamespace]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two saved runs; the second has b right at once, in its global stage."""
    first = make_run()
    second = make_run(
        stages={**first.stages, "global": (ranking(1, 2), ranking(2, 1), ranking(1))},
        about={"date": "later", "model": {"name": "starter", "sha256": "34"}},
        notes=("a subset",),
    )
    paths = tmp_path / "a.zip", tmp_path / "b.zip"
    write_run(paths[0], first)
    write_run(paths[1], second)
    return paths


def test_the_command_prints_figures_changes_and_causes(
    delg: Command, runs: tuple[Path, Path]
) -> None:
    lines = delg("evaluate", "compare", *runs, "--stage", "global").out.splitlines()
    assert lines[0].endswith("a.zip, stage global")
    assert lines[2] == "groups, 3 queries in both"
    assert lines[5].split()[:4] == ["mAP", "75.00", "100.00", "+25.00"]
    assert lines[5].split()[-3:] == ["1", "1", "0"]
    assert "mAP, the 1 largest changes of 1:" in lines
    assert "    50.00   100.00   +50.00  b" in lines
    assert "  model.sha256  12 -> 34" in lines
    assert lines[-1] == "note: a subset"


def test_one_run_is_compared_from_its_first_to_its_last_stage(
    delg: Command, runs: tuple[Path, Path]
) -> None:
    answer = delg("evaluate", "compare", runs[0], "--json").json
    assert answer["stages"] == ["global", "verified"]
    assert answer["figures"]["mAP"]["changes"] == [
        {"query": "a", "first": 1.0, "second": 0.5},
        {"query": "b", "first": 0.5, "second": 1.0},
    ]
    assert answer["figures"]["mAP"]["difference"]["same_sign"] is None


def test_two_runs_are_compared_at_the_last_stage_they_share(
    delg: Command, runs: tuple[Path, Path]
) -> None:
    out = delg("evaluate", "compare", *runs).out
    assert "stage verified" in out
    assert "mAP is the same for every query" in out


def test_other_stages_and_measures_and_a_csv_file(
    delg: Command, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ["--stage", "global", "--other-stage", "verified", "--measure", "R@1"]
    out = delg("evaluate", "compare", *runs, *options, "--csv", tmp_path / "c.csv").out
    assert "R@1, the 2 largest changes of 2:" in out
    assert (tmp_path / "c.csv").read_text().splitlines()[1] == "a,1.000000,0.000000,-1.000000"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--stage", "x"], 1, "must be one of global, verified, got 'x'", id="stage"),
        pytest.param(["--measure", "x"], 1, "must be one of mAP, R@1,", id="measure"),
        pytest.param(["--stage", "verified"], 2, "must be another stage than", id="same stage"),
    ],
)
def test_what_is_not_there_is_said(
    delg: Command, runs: tuple[Path, Path], options: list[str], code: int, message: str
) -> None:
    result = delg("evaluate", "compare", runs[0], *options)
    assert result.code == code
    assert message in " ".join(result.err.replace("│", " ").split())
