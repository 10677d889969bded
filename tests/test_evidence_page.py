"""The HTML page of a search: answers, escaping, size, and what it does without its photos."""

import errno
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendelg.errors import OpenDelgError
from opendelg.evidence import Evidence, Side, percent, verdict, write_page
from opendelg.evidence.layout import MAX_LINES
from opendelg.evidence.wording import headline, visible

HOSTILE = [
    pytest.param("<script>alert(1)</script>", id="script"),
    pytest.param("\"'><img src=x onerror=alert(1)>", id="attribute"),
    pytest.param("line\nbreak\t\x00\x1b", id="control characters"),
    pytest.param("caf\udce9\ud800", id="not UTF-8"),
    pytest.param("\u202egpj.exe\u2066", id="direction override"),
    pytest.param("{{ 7 * 7 }}{% raw %}", id="template"),
    pytest.param("</style></title><!--", id="closing tags"),
    pytest.param("תמונה של המגדל", id="right to left"),
]


class Outline(HTMLParser):
    """Tags, attributes and texts of a page; fails if elements do not nest."""

    VOID = frozenset(("meta", "img", "input"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def photo(folder: Path, name: str, size: tuple[int, int] = (320, 240)) -> Side:
    path = folder / name
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return Side(name, path, size)


@pytest.fixture
def query(tmp_path: Path) -> Side:
    return photo(tmp_path, "query.jpg")


@pytest.fixture
def evidence(query: Side, tmp_path: Path) -> Evidence:
    """A confident pair of drawn photos with three inliers and one rejected match."""
    points = np.array([[0, 0], [319, 0], [160, 239], [10, 10]], np.float32)
    return Evidence(
        query=query,
        database=photo(tmp_path, "found.jpg"),
        rank=1,
        similarity=0.8125,
        num_matches=4,
        num_inliers=3,
        same=0.99,
        query_points=points,
        database_points=points,
        inliers=np.array([True, True, True, False]),
        query_region=points[:3],
        database_region=points[:3],
    )


def page(query: Side, evidences: list[Evidence], folder: Path) -> Outline:
    path = write_page(query, None, evidences, folder)
    return Outline(path.read_text("utf-8"))


def test_a_confident_result_is_said_in_words_and_numbers(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    text = page(query, [evidence], tmp_path / "out").text
    assert "1 confident match" in text
    assert "Almost certainly the same place (99\u00a0%)" in text
    assert "Similarity 0.812, 4 matches, 3 inliers" in text
    assert "320 × 240 px" in text


def test_without_a_confident_result_the_page_says_so_on_top(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    doubtful = [replace(evidence, rank=rank, same=0.49) for rank in (1, 2)]
    html = write_page(query, None, doubtful, tmp_path / "out").read_text("utf-8")
    assert "<h1>No confident match</h1>" in html
    assert html.index("<h1>") < html.index("<figure")


def test_zero_results_make_a_page(query: Side, tmp_path: Path) -> None:
    outline = page(query, [], tmp_path / "out")
    assert "No results" in outline.text
    assert "section" not in outline.tags


def test_an_overview_precedes_several_pairs(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    outline = page(query, [replace(evidence, rank=rank) for rank in (1, 2, 3)], tmp_path / "out")
    assert outline.tags.count("img") == outline.tags.count("section") == 3
    assert outline.tags.index("img") < outline.tags.index("section")


def test_every_link_and_reference_has_its_target(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    outline = page(query, [replace(evidence, rank=rank) for rank in (1, 2, 3)], tmp_path / "out")
    targets = [link[1:] for link in outline.values("href") if link.startswith("#")]
    names = outline.values("id")
    assert set(targets) <= set(names)
    assert len(names) == len(set(names))


def test_inlier_lines_end_at_their_points(query: Side, evidence: Evidence, tmp_path: Path) -> None:
    outline = page(query, [evidence], tmp_path / "out")
    # 1600 x 1200 units per photo, 5 per px, 20 between; pixel 0 has its centre 2.5 units inside.
    assert "M2 2L1622 2" in outline.values("d")[3]  # after two outlines and the rejected


def test_a_result_without_verification_is_shown_without_lines(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    bare = Evidence(query, evidence.database, 1, 0.5, 0, 0)
    outline = page(query, [bare], tmp_path / "out")
    assert "path" not in outline.tags
    assert "Not rated" in outline.text
    assert "no local matches" in outline.text


def test_more_lines_than_fit_are_announced(query: Side, evidence: Evidence, tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 200, (1500, 2)).astype(np.float32)
    many = replace(
        evidence,
        num_matches=1500,
        num_inliers=1500,
        query_points=points,
        database_points=points,
        inliers=np.ones(1500, bool),
    )
    assert f"{MAX_LINES} of 1,500 lines are drawn" in page(query, [many], tmp_path / "out").text


def page_with_names(evidence: Evidence, folder: Path, name: str) -> Outline:
    """A page with ``name`` wherever a name can stand."""
    query = replace(evidence.query, label=name)
    side = replace(evidence.database, label=name)
    gone = replace(side, path=Path("/nowhere") / name / "x.jpg")
    pairs = [replace(evidence, database=side), replace(evidence, rank=2, database=gone)]
    path = write_page(query, None, pairs, folder, settings={name: name}, seconds={name: 1.0})
    return Outline(path.read_text("utf-8"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_nothing_else(
    evidence: Evidence, tmp_path: Path, name: str
) -> None:
    plain = page_with_names(evidence, tmp_path / "plain", "a photo")
    hostile = page_with_names(evidence, tmp_path / "hostile", name)
    assert hostile.tags == plain.tags
    assert [key for key, _ in hostile.attributes] == [key for key, _ in plain.attributes]
    assert hostile.text == plain.text.replace("a photo", visible(name))


def test_the_page_needs_nothing_from_outside_and_runs_no_script(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    html = write_page(query, (1, 2, 30, 40), [evidence], tmp_path / "out").read_text("utf-8")
    assert re.findall(r"(?:https?:|file:|//)[\w.]+", re.sub(r"base64,[^\"]*", "", html)) == []
    assert not re.search(r"url\(|@import|<script|<link|<iframe", html)
    assert {uri[:5] for uri in re.findall(r'(?:src|href)="([^#"][^"]*)"', html)} == {"data:"}
    assert "default-src 'none'" in html


def test_a_missing_photo_is_a_tile_that_says_why(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    gone = replace(evidence, database=Side("gone.jpg", tmp_path / "gone.jpg", (400, 300)))
    text = page(query, [evidence, replace(gone, rank=2)], tmp_path / "out").text
    assert "photo not available" in text
    assert "may have been moved, renamed or deleted" in text


def test_a_damaged_photo_is_a_tile_with_the_reason(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    evidence.database.path.write_bytes(b"not a photo")
    text = page(query, [evidence], tmp_path / "out").text
    assert "This photo cannot be shown: image must be" in text


def test_a_missing_query_is_no_crash(evidence: Evidence, tmp_path: Path) -> None:
    gone = Side("gone.jpg", tmp_path / "gone.jpg", (400, 300))
    text = page(gone, [replace(evidence, query=gone)], tmp_path / "out").text
    assert "The query photo cannot be shown" in text


def test_a_photo_that_changed_is_shown_without_lines(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    Image.new("RGB", (100, 100)).save(evidence.database.path)
    outline = page(query, [evidence], tmp_path / "out")
    assert "has changed since it was indexed" in outline.text
    assert "path" not in outline.tags


def test_settings_seconds_and_box_are_listed(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    path = write_page(
        query,
        (10, 20, 110.4, 220),
        [evidence],
        tmp_path / "out",
        seconds={"extract": 0.84, "search": 0.013},
        settings={"Model": "delg-tiny", "Collection": "/photos"},
    )
    text = Outline(path.read_text("utf-8")).text
    assert "delg-tiny" in text
    assert "10, 20, 110, 220 px" in text
    assert "extract 0.84, search 0.01" in text


def test_the_query_box_runs_along_pixel_edges(query: Side, tmp_path: Path) -> None:
    path = write_page(query, (10, 20, 110, 220), [], tmp_path / "out")
    assert Outline(path.read_text("utf-8")).values("d")[0] == "M10 20L110 20L110 220L10 220z"


@pytest.mark.slow
def test_a_hundred_results_stay_below_12_megabytes(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (270, 360, 3), np.uint8)  # busier than any photo
    Image.fromarray(noise).save(evidence.database.path, quality=95)
    points = random.uniform(0, 269, (1000, 2)).astype(np.float32)
    heavy = replace(
        evidence,
        database=replace(evidence.database, size=(360, 270)),
        query_points=points * 0.8,
        database_points=points,
        inliers=random.random(1000) < 0.5,
        num_matches=1000,
        num_inliers=500,
    )
    evidences = [replace(heavy, rank=rank) for rank in range(1, 101)]
    path = write_page(query, None, evidences, tmp_path / "out")
    assert path.stat().st_size < 12_000_000


def test_an_existing_page_is_replaced_and_nothing_else_touched(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write_page(query, None, [], tmp_path / "out")
    path = write_page(query, None, [evidence], tmp_path / "out")
    assert "1 confident match" in path.read_text("utf-8")
    assert sorted(os.listdir(tmp_path / "out")) == ["index.html", "notes.txt"]


def test_a_full_disk_keeps_the_old_page(
    query: Side, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_page(query, None, [], tmp_path / "out")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OpenDelgError, match="free some space or choose another folder"):
        write_page(query, None, [evidence], tmp_path / "out")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path / "out") == ["index.html"]


def test_the_same_search_gives_the_same_page(
    query: Side, evidence: Evidence, tmp_path: Path
) -> None:
    first, second = (write_page(query, None, [evidence], tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "under 1 %"), (0.29, "29 %"), (0.4999, "49 %"), (0.9999, "99 %"), (1.0, "99 %")],
)
def test_per_cent_is_rounded_down_and_never_certain(probability: float, expected: str) -> None:
    assert percent(probability).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        (0.99, "almost certainly the same place"),
        (0.9, "very likely the same place"),
        (0.89, "possibly the same place"),
        (0.49, "no confident match"),
        (None, "not rated"),
        (float("nan"), "not rated"),
    ],
)
def test_probabilities_have_words(same: float | None, expected: str) -> None:
    assert verdict(same) == expected


def test_unrated_results_are_not_called_doubtful(evidence: Evidence) -> None:
    assert headline([replace(evidence, same=None)])[0] == "1 result"


def test_bytes_that_are_no_utf_8_are_shown_as_such() -> None:
    assert visible(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
