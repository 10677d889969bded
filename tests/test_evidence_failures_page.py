"""The page of failures: marks, escaping, and that it needs nothing from outside."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendelg.evidence import (
    Evidence,
    FailedQuery,
    RankedPhoto,
    Side,
    failures_title,
    write_failures_page,
)
from opendelg.evidence.wording import visible
from tests.test_evidence_page import HOSTILE, Outline


def photo(folder: Path, name: str) -> Side:
    Image.new("RGB", (320, 240), (90, 120, 150)).save(folder / name)
    return Side(name, folder / name, (320, 240))


@pytest.fixture
def failed(tmp_path: Path) -> FailedQuery:
    """A query whose first result is wrong, and the right one at rank 27."""
    query, wrong, right = (photo(tmp_path, f"{name}.jpg") for name in ("query", "wrong", "right"))
    points = np.array([[0, 0], [319, 0], [160, 239], [10, 10]], np.float32)
    evidence = Evidence(query, wrong, 1, 0.5, 4, 3, None, points, points, points[:, 0] != 10)
    first = RankedPhoto(wrong, 1, "wrong", ("3 inliers", "similarity 0.500"))
    missed = RankedPhoto(right, 27, "right", ("2 inliers",))
    return FailedQuery(
        query,
        None,
        "mAP 3.7, the right photo at rank 27",
        [first, replace(first, rank=2, mark="junk")],
        missed,
        [(first, evidence), (missed, replace(evidence, database=right, num_matches=0))],
    )


def write(failures: list[FailedQuery], folder: Path, word: str = "word") -> str:
    page = write_failures_page(
        failures,
        folder,
        title=failures_title(len(failures), 10),
        explanation=word,
        facts={word: word},
        notes=[word],
    )
    return page.read_text("utf-8")


def test_marks_ranks_and_numbers_are_told(failed: FailedQuery, tmp_path: Path) -> None:
    outline = Outline(write([failed], tmp_path / "out"))
    text = " ".join(outline.text.split())
    assert "1 of 10 queries failed" in text
    assert "1 query.jpg mAP 3.7, the right photo at rank 27" in text
    assert "1 wrong3 inlierssimilarity 0.500" in text
    assert "2 junk" in text
    assert "27 right2 inliers" in text
    assert "4 matches, 3 inliers" in text
    assert "27 right right.jpgno local matches" in text


def test_a_page_begins_as_html_does(failed: FailedQuery, tmp_path: Path) -> None:
    assert write([failed], tmp_path / "out").startswith("<!DOCTYPE html>\n")


def test_the_missed_one_stands_apart(failed: FailedQuery, tmp_path: Path) -> None:
    classes = Outline(write([failed], tmp_path / "out")).values("class")
    assert [name for name in classes if name in ("wrong", "junk", "right missed")] == [
        *("wrong", "junk", "right missed", "wrong"),
    ]


def test_the_box_is_drawn_on_the_query_and_its_pairs(failed: FailedQuery, tmp_path: Path) -> None:
    boxed = replace(failed, box=(10, 20, 110, 220))
    html = write([boxed], tmp_path / "out")
    assert '<path class="box" d="M10 20L110 20L110 220L10 220z"/>' in html
    assert html.count('class="box"') == 1 + 2 * 2  # on wide and narrow drawings of both pairs


def test_a_photo_is_held_once_for_all_its_drawings(failed: FailedQuery, tmp_path: Path) -> None:
    outline = Outline(write([failed, failed], tmp_path / "out"))
    names = outline.values("id")
    assert len(names) == len(set(names))
    assert {link[1:] for link in outline.values("href") if link.startswith("#")} <= set(names)


def test_no_failure_makes_a_page_that_says_so(tmp_path: Path) -> None:
    outline = Outline(write([], tmp_path / "out"))
    assert "No query failed" in outline.text
    assert "section" not in outline.tags


def test_photos_that_are_gone_are_tiles(failed: FailedQuery, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    outline = Outline(write([failed], tmp_path / "out"))
    assert outline.text.count("photo not available") == 1 + 3 + 1 + 2
    assert "The query photo cannot be shown" in outline.text


def hostile_page(failed: FailedQuery, folder: Path, name: str) -> Outline:
    side = replace(failed.query, label=name)
    ranked = replace(failed.results[0], side=side, about=(name,))
    pair = ranked, replace(failed.pairs[0][1], query=side, database=side)
    everywhere = FailedQuery(side, None, name, [ranked], ranked, [pair])
    return Outline(write([everywhere], folder, name))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_nothing_else(
    failed: FailedQuery, tmp_path: Path, name: str
) -> None:
    plain = hostile_page(failed, tmp_path / "plain", "a photo")
    hostile = hostile_page(failed, tmp_path / "hostile", name)
    assert hostile.tags == plain.tags
    assert [key for key, _ in hostile.attributes] == [key for key, _ in plain.attributes]
    assert hostile.text == plain.text.replace("a photo", visible(name))


def test_the_page_needs_nothing_from_outside_and_runs_no_script(
    failed: FailedQuery, tmp_path: Path
) -> None:
    html = write([failed], tmp_path / "out")
    assert re.findall(r"(?:https?:|file:|//)[\w.]+", re.sub(r"base64,[^\"]*", "", html)) == []
    assert not re.search(r"url\(|@import|<script|<link|<iframe", html)
    assert {uri[:5] for uri in re.findall(r'(?:src|href)="([^#"][^"]*)"', html)} == {"data:"}
    assert "default-src 'none'" in html


@pytest.mark.slow
def test_twenty_failures_stay_below_12_megabytes(failed: FailedQuery, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (270, 360, 3), np.uint8)
    for path in tmp_path.glob("*.jpg"):
        Image.fromarray(noise).save(path, quality=95)
    write([failed] * 20, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").stat().st_size < 12_000_000
