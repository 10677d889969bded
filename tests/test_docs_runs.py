"""Figures in the documents are those of the saved runs in docs/runs, scored again."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "runs"
Run = Callable[..., SimpleNamespace]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_the_table_of_paris_is_that_of_its_run(delg: Run) -> None:
    scored = delg("evaluate", "rescore", RUNS / "rparis6k_gldv2.zip").out
    assert scored in page("evaluation.md")


def test_the_table_of_reproduced_figures_is_that_of_its_run(delg: Run) -> None:
    found = delg("evaluate", "rescore", RUNS / "rparis6k.zip").out
    ours = re.findall(r"^((?:global|verified|official) \w+) +([\d.]+)", found, re.MULTILINE)
    shown = re.findall(r"^rparis6k   (\w+ \w+) +mAP +([\d.]+)\*", page("evaluation.md"), re.M)
    assert len(ours) == 9
    assert shown == ours


def test_the_example_of_compare_is_that_of_its_runs(delg: Run) -> None:
    before, after = RUNS / "smvs_landmarks_fast.zip", RUNS / "smvs_landmarks.zip"
    compared = delg("evaluate", "compare", before, after, "--top", 3).out
    assert compared[compared.index("measure") :] in page("evaluation.md")


@pytest.mark.parametrize(
    ("stage", "row"),
    [("global", "starter, global stage"), ("verified", "starter, verified")],
)
def test_the_quality_of_the_starter_is_that_of_its_runs(delg: Run, stage: str, row: str) -> None:
    figures = []
    for table in ("smvs_landmarks", "uva"):
        found = delg("evaluate", "rescore", RUNS / f"{table}.zip", "--json").json[stage]
        figures += [found["recall_at"]["1"], found["recall_at"]["10"], found["mAP"]]
    (line,) = re.findall(rf"^\| {row} \|(.*)\|$", page("weights.md"), re.MULTILINE)
    shown = [cell.strip(" *") for cell in line.split("|")]
    assert shown == [f"{figure:.2f}" for figure in figures]


def test_the_readme_tells_the_figures_of_the_run(delg: Run) -> None:
    found = delg("evaluate", "rescore", RUNS / "smvs_landmarks.zip", "--json").json
    first = [round(100 * found[stage]["recall_at"]["1"]) for stage in ("verified", "global")]
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"first in {first[0]} of 100 queries" in text
    assert f"({first[1]} before verification" in text
