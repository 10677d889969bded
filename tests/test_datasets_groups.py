from pathlib import Path

import pytest

from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.errors import FormatError

HEADER = "image,group,role\n"
TABLE = HEADER + "a/1.jpg,tower,query\na/2.jpg,tower,database\nb/3.jpg,bridge,both\n"


def write_images(folder: Path) -> Path:
    images = folder / "images"
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).touch()
    return images


def read(folder: Path, table: str | bytes) -> GroupsDataset:
    path = folder / "table.csv"
    path.write_bytes(table.encode() if isinstance(table, str) else table)
    return read_groups(path, write_images(folder))


def test_positives_are_the_database_images_of_the_group(tmp_path: Path) -> None:
    dataset = read(tmp_path, TABLE)
    assert dataset.names == ("a/1.jpg", "a/2.jpg", "b/3.jpg")
    assert dataset.groups == ("tower", "tower", "bridge")
    assert dataset.query_ids.tolist() == [0, 2]
    assert dataset.database_ids.tolist() == [1, 2]
    assert [p.tolist() for p in dataset.positives] == [[1], []]


def test_query_is_not_its_own_positive(tmp_path: Path) -> None:
    dataset = read(tmp_path, TABLE + "b/4.jpg,bridge,both\n")
    assert [p.tolist() for p in dataset.positives] == [[1], [3], [2]]


def test_query_without_positives_is_counted(tmp_path: Path) -> None:
    dataset = read(tmp_path, TABLE)
    assert dataset.num_without_positives == 1
    assert dataset.positives[1].dtype == "int64"


def test_other_queries_of_the_group_are_not_positives(tmp_path: Path) -> None:
    dataset = read(tmp_path, TABLE + "b/4.jpg,tower,query\n")
    assert dataset.positives[2].tolist() == [1]


def test_path_of_an_image_lies_in_the_folder(tmp_path: Path) -> None:
    assert read(tmp_path, TABLE).path(2) == tmp_path / "images" / "b" / "3.jpg"


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(b"\xef\xbb\xbf" + TABLE.encode(), id="byte order mark"),
        pytest.param(TABLE.replace("\n", "\r\n"), id="line ends of Windows"),
        pytest.param(TABLE.rstrip("\n"), id="no line end at the end"),
        pytest.param(TABLE.replace("\n", "\n\n"), id="empty lines"),
        pytest.param(TABLE.replace(",", " , "), id="spaces around fields"),
        pytest.param(TABLE.replace("a/1.jpg", '"a/1.jpg"'), id="quotes"),
        pytest.param(TABLE.replace("a/1.jpg", "./a//1.jpg"), id="path not in its short form"),
    ],
)
def test_table_is_read_however_it_was_written(tmp_path: Path, table: str | bytes) -> None:
    assert read(tmp_path, table).names == ("a/1.jpg", "a/2.jpg", "b/3.jpg")


def test_columns_may_be_in_any_order_among_others(tmp_path: Path) -> None:
    table = "role,year,image,group\nquery,1900,a/1.jpg,x\ndatabase,1950,a/2.jpg,x\n"
    assert [p.tolist() for p in read(tmp_path, table).positives] == [[1]]


def test_commas_and_letters_of_any_language_are_kept(tmp_path: Path) -> None:
    table = TABLE.replace("tower", '"Žižkov, Praha"')
    assert read(tmp_path, table).groups[0] == "Žižkov, Praha"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("", "table must not be empty, got no header", id="empty file"),
        pytest.param("\n \n", "table must not be empty, got no header", id="blank file"),
        pytest.param(HEADER, "table must have a query image, got none", id="no rows"),
        pytest.param(
            HEADER + "a/1.jpg,x,query\n", "must have a database image, got none", id="no database"
        ),
        pytest.param(
            "image,label,role\n", "must have columns image, group, role, got .* line 1", id="column"
        ),
        pytest.param("image,group,role,role\n", "must not repeat columns, .* line 1", id="columns"),
        pytest.param(
            HEADER + "a/1.jpg,x,quary\n",
            "role must be one of query, database, both, got 'quary' in line 2",
            id="role",
        ),
        pytest.param(HEADER + "a/1.jpg,x\n", "row must have 3 fields, got 2 in line 2", id="short"),
        pytest.param(
            HEADER + "a/1.jpg,x,query,y\n", "row must have 3 fields, got 4 in line 2", id="long"
        ),
        pytest.param(
            HEADER + ",x,query\n", "image and group must not be empty, .* line 2", id="no name"
        ),
        pytest.param(
            HEADER + "a/1.jpg, ,query\n", "image and group must not be empty, .* line 2", id="group"
        ),
        pytest.param(
            TABLE + "a/1.jpg,x,database\n",
            "image must appear once, got 'a/1.jpg' in lines 2 and 5 .* role 'both'",
            id="twice",
        ),
        pytest.param(
            HEADER + "../1.jpg,x,query\n",
            "image must lie below the folder of images, got '../1.jpg' in line 2",
            id="outside",
        ),
        pytest.param(
            HEADER + "/etc/passwd,x,query\n", "must lie below .*, got '/etc/passwd'", id="absolute"
        ),
        pytest.param(HEADER + "a\0.jpg,x,query\n", "in line 2", id="null byte"),
        pytest.param(
            HEADER + 'a/1.jpg,"x"y,query\n', "table must be valid CSV, .* line 2", id="quotes"
        ),
        pytest.param(
            HEADER + 'a/1.jpg,"x,query\n', "table must be valid CSV, .* line 2", id="open quote"
        ),
        pytest.param(
            (TABLE + "b/4.jpg,Züri,both\n").encode("latin-1"),
            "table must be UTF-8 text, got byte 0xfc in line 5",
            id="encoding",
        ),
        pytest.param(
            TABLE.encode("utf-16"), "table must be UTF-8 text, got byte 0xff in line 1", id="utf-16"
        ),
        pytest.param(
            HEADER + "".join(f"a/x{i}.jpg,x,both\n" for i in range(5)),
            r"got 5 missing of 5: 'a/x0.jpg' \(line 2\), .*, 'a/x2.jpg' \(line 4\), \.\.\.$",
            id="missing",
        ),
    ],
)
def test_faulty_table_is_refused_with_its_line(
    tmp_path: Path, table: str | bytes, message: str
) -> None:
    with pytest.raises(FormatError, match=message) as raised:
        read(tmp_path, table)
    assert "table.csv" in str(raised.value)


def test_table_or_folder_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_groups(tmp_path / "table.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match="images must be an existing folder"):
        read_groups(tmp_path / "table.csv", tmp_path / "images")


def test_folder_in_place_of_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="table must be readable"):
        read_groups(tmp_path, tmp_path)
