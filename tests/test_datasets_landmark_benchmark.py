import numpy as np
import pytest

from opendelg.datasets.landmark_benchmark import (
    read_image_list,
    read_labelled_images,
    read_recognition_solution,
    read_retrieval_solution,
    write_recognition_submission,
    write_retrieval_submission,
)
from opendelg.errors import FormatError

A, B, C, D = (letter * 16 for letter in "abcd")


@pytest.fixture
def table(tmp_path):
    def write(*rows: str):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def hexes(ids: np.ndarray) -> list[str]:
    return [f"{image_id:x}" for image_id in ids.tolist()]


def test_a_list_keeps_its_order(table) -> None:
    assert hexes(read_image_list(table("id", B, "", A))) == [B, A]


def test_windows_line_ends_and_marks_are_no_fault(tmp_path) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(b"\xef\xbb\xbfid,url\r\n" + A.encode() + b",http://x\r\n")
    assert hexes(read_image_list(path)) == [A]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["id"], "list must have images, got none"),
        (["image", A], "table must have the columns id, got 'image'"),
        (
            ["id", A, A[:15]],
            r"id must be 16 hexadecimal digits, got 'aaaaaaaaaaaaaaa' in line 3 of",
        ),
        (["id", A.upper()], "id must be 16 hexadecimal digits"),
        (["id", A, B, A], f"id must appear once, got '{A}' again in line 4"),
        (["id", f"{A},x"], "row must have 1 fields, got 2 in line 2"),
    ],
)
def test_wrong_lists_are_errors(table, rows, message) -> None:
    with pytest.raises(FormatError, match=message):
        read_image_list(table(*rows))


def test_a_retrieval_solution_leaves_ignored_queries_out(table) -> None:
    rows = [f"{A},{C} {D},Public", f"{B},None,Ignored", f"{C},,Private", f"{D},None,Private"]
    solution = read_retrieval_solution(table("id,images,Usage", *rows))
    assert hexes(solution.query_ids) == [A, C, D]
    assert [hexes(truth) for truth in solution.truths] == [[C, D], [], []]
    assert (solution.usages.tolist(), solution.num_ignored) == ([0, 1, 1], 1)


def test_a_recognition_solution_may_have_several_landmarks_or_none(table) -> None:
    rows = [f"{A},0 12,Public", f"{B},,Public", f"{C},None,Private", f"{D},7,Ignored"]
    solution = read_recognition_solution(table("id,landmarks,Usage", *rows))
    assert [truth.tolist() for truth in solution.truths] == [[0, 12], [], []]
    assert solution.usages.tolist() == [0, 0, 1]


def test_truths_may_be_long(table) -> None:
    images = " ".join(f"{number:016x}" for number in range(20_000))
    solution = read_retrieval_solution(table("id,images,Usage", f"{A},{images},Public"))
    assert len(solution.truths[0]) == 20_000


def test_some_queries_can_be_taken(table) -> None:
    rows = [f"{A},1,Public", f"{B},2,Private", f"{C},3,Public"]
    taken = read_recognition_solution(table("id,landmarks,Usage", *rows)).take(np.array([2, 1]))
    assert (hexes(taken.query_ids), taken.usages.tolist()) == ([C, B], [0, 1])
    assert [truth.tolist() for truth in taken.truths] == [[3], [2]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{A},1", "row must have 3 fields, got 2 in line 2"),
        (f"{A},x,Public", "landmark must be a number, got 'x' in line 2"),
        (f"{A},-1,Public", "landmark must be a number, got '-1'"),
        (f"{A},1,public", "Usage must be Public, Private or Ignored, got 'public' in line 2"),
        ("1,1,Public", "id must be 16 hexadecimal digits, got '1'"),
        (f"{A},1,Ignored", "solution must have queries, got none beside 1 ignored"),
        (f"{A},1,Public\n{A},1,Ignored", "id must appear once"),
    ],
)
def test_wrong_solutions_are_errors(table, row, message) -> None:
    with pytest.raises(FormatError, match=message):
        read_recognition_solution(table("id,landmarks,Usage", row))


def test_another_solution_is_an_error(table) -> None:
    path = table("id,images,Usage", f"{A},{B},Public")
    with pytest.raises(FormatError, match="table must have the columns id,landmarks,Usage"):
        read_recognition_solution(path)


def test_a_wrong_row_of_a_labelled_list_is_an_error(table) -> None:
    path = table("landmark_id,images", f"1,{A} {B}", f"x,{C}")
    with pytest.raises(FormatError, match=r"correct rows, got 1 that are not in .* first line 3"):
        read_labelled_images(path)


def test_retrieval_submissions_have_the_official_format(tmp_path) -> None:
    write_retrieval_submission(tmp_path / "s.csv", [int(A, 16), 1], [[B, C], []])
    assert (tmp_path / "s.csv").read_bytes() == (
        f"id,images\n{A},{B} {C}\n0000000000000001,\n".encode()
    )


def test_recognition_submissions_keep_every_digit(tmp_path) -> None:
    predictions = [(12, 0.1 + 0.2), None, (7, 1e-7)]
    write_recognition_submission(tmp_path / "s.csv", [int(A, 16), 1, 2], predictions)
    assert (tmp_path / "s.csv").read_text().splitlines() == [
        "id,landmarks",
        f"{A},12 0.30000000000000004",
        "0000000000000001,",
        "0000000000000002,7 1e-07",
    ]
