import numpy as np
import pytest

from opendelg.datasets.landmarks import read_landmarks
from opendelg.errors import FormatError

A, B, C = (letter * 16 for letter in "abc")


def write(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    return tmp_path / "train_clean.csv"


def many(sizes, seed=0):
    """Rows of landmarks with so many images each."""
    random = np.random.default_rng(seed)
    return [
        f"{landmark},{' '.join(f'{v:016x}' for v in random.integers(0, 2**63, size))}"
        for landmark, size in enumerate(sizes)
    ]


def test_clean_list_gives_labels_in_the_order_of_landmark_ids(table):
    listed = read_landmarks(write(table, "landmark_id,images", f"20,{C} {A}", f"9,{B}"))
    assert [f"{i:x}" for i in listed.ids.tolist()] == [A, B, C]
    assert listed.labels.tolist() == [1, 0, 1]
    assert listed.landmark_ids.tolist() == [9, 20]


def test_full_list_may_have_commas_in_its_addresses(table):
    rows = [f'{B},"http://x/a,b.jpg",5', f"{A},http://x/c.jpg,4"]
    listed = read_landmarks(write(table, "id,url,landmark_id", *rows))
    assert listed.labels.tolist() == [0, 1]
    assert listed.malformed_rows.count == 0


def test_rows_may_be_as_long_as_the_largest_landmark(table):
    listed = read_landmarks(write(table, "landmark_id,images", *many([20_000])))
    assert len(listed.ids) == 20_000


def test_malformed_rows_are_counted_and_left_out(table):
    rows = ["", "no comma", f"x,{A}", "4,", f"5,{A} 12 {B.upper()}", f"-6,{C}"]
    listed = read_landmarks(write(table, "landmark_id,images", *rows))
    assert [f"{i:x}" for i in listed.ids.tolist()] == [A]
    assert listed.malformed_rows.count == 6
    assert listed.malformed_rows.examples[0] == "line 3: 'no comma'"


def test_an_image_that_is_listed_again_counts_once(table):
    listed = read_landmarks(write(table, "landmark_id,images", f"1,{A} {B} {A}", f"1,{A}"))
    assert len(listed.ids) == 2
    assert (listed.repeated_images.count, listed.repeated_images.examples[0]) == (2, A)


def test_an_image_with_two_labels_is_left_out(table):
    listed = read_landmarks(write(table, "landmark_id,images", f"1,{A} {B}", f"2,{A}", f"3,{A}"))
    assert [f"{i:x}" for i in listed.ids.tolist()] == [B]
    assert listed.landmark_ids.tolist() == [1]
    assert listed.images_with_two_labels.examples == [A]


@pytest.mark.parametrize("header", ["id,images", "", "landmark_id,id", "\x00"])
def test_other_columns_are_an_error(table, header):
    with pytest.raises(FormatError, match="list must have the columns landmark_id,images or"):
        read_landmarks(write(table, header, f"1,{A}"))


def test_a_list_without_images_is_an_error(table):
    with pytest.raises(FormatError, match=r"got none in .* \(1 malformed rows\)"):
        read_landmarks(write(table, "landmark_id,images", "1,z"))


def test_bytes_that_are_no_text_are_a_malformed_row(table):
    table.write_bytes(b"landmark_id,images\n1,\xff\xfe\n2," + A.encode() + b"\n")
    assert read_landmarks(table).malformed_rows.count == 1


def test_a_fifth_of_every_landmark_is_held_out_but_at_least_one(table):
    listed = read_landmarks(write(table, "landmark_id,images", *many([1, 2, 5, 9, 10, 35])))
    held_out = np.bincount(listed.labels, listed.is_held_out())
    assert held_out.tolist() == [1, 1, 1, 1, 2, 7]


def test_the_split_does_not_depend_on_the_order_of_rows(table):
    rows = many([7] * 30)
    first = read_landmarks(write(table, "landmark_id,images", *rows))
    second = read_landmarks(write(table, "landmark_id,images", *reversed(rows)))
    assert first.split_hash() == second.split_hash()


def test_the_split_of_a_landmark_does_not_depend_on_the_others(table):
    rows = many([7] * 30)
    whole = read_landmarks(write(table, "landmark_id,images", *rows))
    part = read_landmarks(write(table, "landmark_id,images", *rows[:10]))
    assert set(part.ids[part.is_held_out()].tolist()) <= set(
        whole.ids[whole.is_held_out()].tolist()
    )


def test_the_split_stays_what_it_was(table):
    # Runs on GLDv2 are compared over years: another split is another data set.
    listed = read_landmarks(write(table, "landmark_id,images", f"1,{A} {B} {C}", f"2,{'d' * 16}"))
    assert listed.is_held_out().tolist() == [True, False, False, True]
    assert listed.split_hash()[:16] == "d136e12b8ebe49f4"


def test_another_label_changes_the_hash(table):
    one = read_landmarks(write(table, "landmark_id,images", f"1,{A} {B}", f"2,{C}"))
    two = read_landmarks(write(table, "landmark_id,images", f"1,{A}", f"2,{C} {B}"))
    assert one.split_hash() != two.split_hash()
