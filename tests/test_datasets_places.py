import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendelg.datasets.places import NearRule, PlacesDataset, PlacesOptions, read_places
from opendelg.errors import FormatError, OpenDelgError
from tests.place_samples import (
    DATABASE,
    cell,
    csv_file,
    dbstruct,
    msls_city,
    save,
    table_folder,
    utm_folder,
    utm_name,
)

EACH_ITS_OWN = [[0], [1], [2], [3], [4]]


def positives(dataset: PlacesDataset) -> list[list[int]]:
    assert dataset.positives is not None
    return [ids.tolist() for ids in dataset.positives]


def read(folder: Path, **options: Any) -> PlacesDataset:
    return read_places(folder, PlacesOptions(**options))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(utm_folder, "utm", id="utm"),
        pytest.param(lambda f: utm_folder(f, below="images/test"), "utm", id="utm-images-test"),
        pytest.param(lambda f: msls_city(msls_city(f, "cph"), "sf"), "msls", id="msls"),
        pytest.param(dbstruct, "pitts30k", id="pitts30k"),
        pytest.param(
            lambda f: dbstruct(f, "tokyo247.mat", ("images", "query")), "tokyo247", id="tokyo247"
        ),
    ],
)
def test_layouts_are_found_out(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    assert read(make(tmp_path)).name == name


def test_names_tell_positions(tmp_path: Path) -> None:
    dataset = read(utm_folder(tmp_path))
    assert positives(dataset) == EACH_ITS_OWN
    np.testing.assert_array_equal(dataset.database.positions, DATABASE)
    assert dataset.database_path(0).is_file()
    assert dataset.query_path(4).is_file()


def test_images_of_other_zones_are_not_near(tmp_path: Path) -> None:
    utm_folder(tmp_path, zone="17")
    east, north = DATABASE[0]
    save(tmp_path / "queries" / utm_name(east, north, "018", "T"), 9)
    assert [] in positives(read(tmp_path))


def test_bands_of_one_zone_share_their_metres(tmp_path: Path) -> None:
    save(tmp_path / "database" / "@1@3@54@S@.png", 0)
    save(tmp_path / "database" / "@1@99@54@S@.png", 0)
    save(tmp_path / "queries" / "@1@2@54@T@.png", 0)
    assert positives(read(tmp_path)) == [[0]]


def test_the_shortest_name_has_two_numbers(tmp_path: Path) -> None:
    for name in ("database/@1@2@.png", "database/@1@99@.png", "queries/x@1@3@.png"):
        save(tmp_path / name, 0)
    assert positives(read(tmp_path)) == [[0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("photo.png", "must be like '@east@north@", id="no-fields"),
        pytest.param("@1@2.png", "must be like '@east@north@", id="no-end"),
        pytest.param("@@2@17@.png", "finite numbers, got ''", id="empty"),
        pytest.param("@x@2@17@.png", "finite numbers, got 'x'", id="text"),
        pytest.param("@nan@2@17@.png", "finite numbers, got 'nan'", id="nan"),
        pytest.param("@inf@2@17@.png", "finite numbers, got 'inf'", id="infinite"),
        pytest.param("@1e30@2@17@.png", r"below 1e\+09, got \(1e\+30, 2\)", id="large"),
        pytest.param("@1@2@61@T@.png", "from 1 to 60, got '61'", id="zone"),
        pytest.param("@1@2@17T@.png", "from 1 to 60, got '17T'", id="zone-letter"),
        pytest.param("@1@2@@T@.png", "all names must have a UTM zone or none", id="no-zone"),
        pytest.param("@1@2@17@T@@@@@east@.png", "finite numbers, got 'east'", id="heading"),
    ],
)
@pytest.mark.parametrize("role", ["database", "queries"])
def test_wrong_names_are_an_error_that_names_them(
    tmp_path: Path, role: str, name: str, message: str
) -> None:
    save(utm_folder(tmp_path) / role / name, 0)
    with pytest.raises(FormatError, match=message):
        read(tmp_path)


def test_a_dataset_without_queries_is_an_error(tmp_path: Path) -> None:
    shutil.rmtree(utm_folder(tmp_path) / "queries")
    (tmp_path / "queries").mkdir()
    with pytest.raises(FormatError, match="must have a query image, got none"):
        read(tmp_path)


def test_queries_without_a_positive_count_and_are_told(tmp_path: Path) -> None:
    save(utm_folder(tmp_path) / "queries" / utm_name(0, 0, "17"), 9)
    dataset = read(tmp_path)
    assert (dataset.num_without_positives, len(dataset.queries)) == (1, 6)
    assert "1 queries without a positive count as failures" in dataset.notes


def test_positions_that_never_match_are_an_error(tmp_path: Path) -> None:
    save(tmp_path / "database" / utm_name(0, 0), 0)
    save(tmp_path / "queries" / utm_name(0, 26), 0)
    with pytest.raises(OpenDelgError, match="got none for any of 1 queries"):
        read(tmp_path)


def test_degrees_instead_of_metres_are_an_error(tmp_path: Path) -> None:
    for name in ("database/@12.5@55.7@.png", "database/@12.6@55.6@.png", "queries/@12.5@55.6@.png"):
        save(tmp_path / name, 0)
    with pytest.raises(OpenDelgError, match="UTM in metres, not degrees"):
        read(tmp_path)


def test_another_radius_is_not_comparable(tmp_path: Path) -> None:
    dataset = read(utm_folder(tmp_path), radius=111.0)
    assert positives(dataset)[0] == [0, 1]
    assert any("NOT COMPARABLE" in note for note in dataset.notes)


def test_panoramas_in_names_can_count_once(tmp_path: Path) -> None:
    utm_folder(tmp_path)
    save(tmp_path / "database" / utm_name(500_001, 4_000_000, "17", "T", "", "", "p0"), 9)
    dataset = read(tmp_path, one_per_panorama=True)
    assert dataset.panoramas is not None
    assert dataset.panoramas.tolist() == [0, 0, 1, 2, 3, 4]


def test_a_table_tells_positions(tmp_path: Path) -> None:
    dataset = read(table_folder(tmp_path), csv=tmp_path / "positions.csv")
    assert (dataset.name, positives(dataset)) == ("csv", EACH_ITS_OWN)
    assert dataset.queries.names[0] == "query/0.png"


def test_a_table_tells_frames(tmp_path: Path) -> None:
    dataset = read(table_folder(tmp_path), csv=tmp_path / "positions.csv", frames=10)
    assert positives(dataset) == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]


def test_a_table_tells_panoramas(tmp_path: Path) -> None:
    for seed, name in enumerate("abcdq"):
        save(tmp_path / f"{name}.png", seed)
    table = csv_file(
        tmp_path / "t.csv",
        [
            "image,role,east,north,panorama",
            *("a.png,database,0,0,x", "b.png,database,0,0,x", "c.png,database,0,0,"),
            *("d.png,database,99,0,", "q.png,query,0,0,"),
        ],
    )
    dataset = read(tmp_path, csv=table, one_per_panorama=True)
    assert dataset.panoramas is not None
    assert dataset.panoramas.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(",query,1,2,0,0,,", "image must not be empty in line 12", id="no-image"),
        pytest.param("q.png,both,1,2,0,0,,", "one of query, database, got 'both'", id="role"),
        pytest.param("q.png,query,,2,0,0,,", "east must be a finite number, got ''", id="no-east"),
        pytest.param("q.png,query,1,nan,0,0,,", "north must be a finite number", id="nan"),
        pytest.param("q.png,query,1,2,0,W,,", "heading must be a finite number", id="heading"),
        pytest.param("../q.png,query,1,2,0,0,,", "must lie below the folder", id="outside"),
        pytest.param("gone.png,query,1,2,0,0,,", r"1 missing of 11: 'gone\.png'", id="missing"),
        pytest.param("query/0.png,query,1,2,0,0,,", "appear once, got 'query/0.png'", id="twice"),
        pytest.param("q.png,query,1", "must have 8 fields, got 3", id="short"),
    ],
)
def test_wrong_rows_are_an_error_that_names_them(tmp_path: Path, row: str, message: str) -> None:
    save(table_folder(tmp_path) / "q.png", 0)
    with (tmp_path / "positions.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(FormatError, match=message):
        read(tmp_path, csv=tmp_path / "positions.csv")


def test_a_table_needs_the_columns_of_its_unit(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    table = csv_file(tmp_path / "t.csv", ["image,role,frame", "a.png,query,1"])
    with pytest.raises(FormatError, match="must have columns image, role, east, north"):
        read(tmp_path, csv=table)


def test_headings_are_compared_where_that_is_wished(tmp_path: Path) -> None:
    for name in "abcq":
        save(tmp_path / f"{name}.png", 0)
    rows = ["image,role,east,north,heading", "a.png,database,0,0,350", "b.png,database,0,0,51"]
    table = csv_file(tmp_path / "t.csv", [*rows, "c.png,database,0,0,180", "q.png,query,0,0,10"])
    assert positives(read(tmp_path, csv=table, heading=40.0)) == [[0]]
    assert positives(read(tmp_path, csv=table, heading=41.0)) == [[0, 1]]


def test_headings_that_are_not_known_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="headings must be known to compare them, got 5 database"):
        read(utm_folder(tmp_path), heading=40.0)


def frames_folder(folder: Path, query_frames: tuple[int, ...] = (0, 12, 33)) -> Path:
    for frame in range(0, 50, 5):
        save(folder / "database" / f"images-{frame:05d}.png", frame)
    for frame in query_frames:
        save(folder / "queries" / f"winter_2_{frame}.png", frame)
    return folder


def test_frames_are_near_by_their_numbers(tmp_path: Path) -> None:
    dataset = read(frames_folder(tmp_path), name="nordland")
    # Database frames 0, 5, 10, ...; names of queries are sorted as text.
    assert dataset.queries.names == (
        "queries/winter_2_0.png",
        "queries/winter_2_12.png",
        "queries/winter_2_33.png",
    )
    assert positives(dataset) == [[0, 1, 2], [1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(0, [[0], [], []]), (2, [[0], [2], [7]]), (3, [[0], [2, 3], [6, 7]])],
)
def test_fewer_frames_make_fewer_positives(
    tmp_path: Path, frames: float, expected: list[list[int]]
) -> None:
    assert positives(read(frames_folder(tmp_path), name="nordland", frames=frames)) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("snow.png", "must end in its number, got 'queries/snow.png'", id="none"),
        pytest.param("1234567890.png", "must end in its number", id="too-many-digits"),
        pytest.param("0033.png", "each frame must have one image, got 'queries/0033", id="twice"),
    ],
)
def test_wrong_frames_are_an_error_that_names_them(tmp_path: Path, name: str, message: str) -> None:
    save(frames_folder(tmp_path) / "queries" / name, 0)
    with pytest.raises(FormatError, match=message):
        read(tmp_path, name="nordland")


def test_nordland_with_positions_in_its_names_is_read_by_them(tmp_path: Path) -> None:
    dataset = read(utm_folder(tmp_path), name="nordland")
    assert (dataset.layout, positives(dataset)) == ("utm", EACH_ITS_OWN)


def test_specifications_tell_positions(tmp_path: Path) -> None:
    dataset = read(dbstruct(tmp_path))
    assert positives(dataset) == EACH_ITS_OWN
    assert dataset.queries.names[0] == "queries_real/000/q0_pitch1.png"
    assert dataset.panoramas is None
    assert dataset.rule == NearRule(25.0)


def test_the_radius_of_a_specification_counts_unless_another_is_named(tmp_path: Path) -> None:
    dbstruct(tmp_path, posDistThr=95.0)
    assert positives(read(tmp_path))[:2] == [[0, 1], [1, 2]]
    assert positives(read(tmp_path, radius=25.0)) == EACH_ITS_OWN


def test_tokyo_counts_each_panorama_of_twelve_once(tmp_path: Path) -> None:
    many = [f"{number}.png" for number in range(30)]
    for number, name in enumerate(many):
        save(tmp_path / "images" / name, number)
    utm = np.repeat(np.array(DATABASE).T, 6, axis=1)
    dbstruct(tmp_path, "tokyo247.mat", ("other", "query"), dbImageFns=cell(many), utmDb=utm)
    dataset = read(tmp_path)
    assert dataset.panoramas is not None
    assert dataset.panoramas.tolist() == [0] * 12 + [1] * 12 + [2] * 6
    assert "only the first result of each panorama counts" in dataset.notes
    assert read(tmp_path, one_per_panorama=False).panoramas is None


def test_copies_with_another_suffix_are_found(tmp_path: Path) -> None:
    names = [f"000/d{number}_pitch1.jpg" for number in range(5)]
    dataset = read(dbstruct(tmp_path, dbImageFns=cell(names)))
    assert dataset.database.names[0] == "000/d0_pitch1.png"


def test_any_specification_can_be_named(tmp_path: Path) -> None:
    dbstruct(tmp_path, "pitts250k_test.mat")
    assert read(tmp_path, mat=tmp_path / "pitts250k_test.mat").name == "dbstruct"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"dbImageFns": 1.0}, "dbImageFns must be a cell of texts", id="names"),
        pytest.param({"utmQ": np.zeros((2, 4))}, r"utmQ must be \(2, 5\), got \(2, 4\)", id="utm"),
        pytest.param({"utmDb": np.full((2, 5), np.nan)}, "positions must be finite", id="nan"),
        pytest.param({"posDistThr": -1.0}, "posDistThr must be a number above 0", id="radius"),
        pytest.param(
            {"qImageFns": cell(["../a.png"] * 5)}, "must lie below the folder", id="outside"
        ),
        pytest.param(
            {"qImageFns": cell([f"{n}.png" for n in range(5)])}, "5 missing of 5", id="missing"
        ),
    ],
)
def test_wrong_specifications_are_an_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        read(dbstruct(tmp_path, **changes))


def test_an_absent_specification_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must have tokyo247\.mat or the folders"):
        read(tmp_path, name="tokyo247")


def test_msls_leaves_out_panoramas_and_queries_without_a_positive(tmp_path: Path) -> None:
    dataset = read(msls_city(tmp_path, "cph"), cities=("cph",))
    assert len(dataset.database) == 6  # seven without the panorama
    assert dataset.queries.keys == tuple(f"cph-q{number}" for number in range(5))
    assert (positives(dataset), dataset.num_removed) == (EACH_ITS_OWN, 1)
    assert dataset.queries.names[0] == "train_val/cph/query/images/cph-q0.jpg"
    assert "1 queries without a positive are left out" in dataset.notes


def test_cities_of_msls_are_searched_together_but_never_near(tmp_path: Path) -> None:
    dataset = read(msls_city(msls_city(tmp_path, "cph"), "sf"))
    assert len(dataset.database) == 12
    assert positives(dataset) == [[0], [1], [2], [3], [4], [6], [7], [8], [9], [10]]


def test_a_subtask_of_msls_keeps_its_images(tmp_path: Path) -> None:
    msls_city(tmp_path, "cph")
    index = tmp_path / "train_val/cph/database/subtask_index.csv"
    index.write_text(index.read_text().replace("1,True,False", "1,True,True"))
    dataset = read(tmp_path, cities=("cph",), subtask="s2w")
    assert (dataset.database.keys, dataset.queries.keys) == (("cph-d0", "cph-d1"), ("cph-q0",))


def test_headings_of_msls_are_compared_where_that_is_wished(tmp_path: Path) -> None:
    msls_city(tmp_path, "cph")
    raw = tmp_path / "train_val/cph/query/raw.csv"
    raw.write_text(raw.read_text().replace(",140,", ",90,"))
    dataset = read(tmp_path, cities=("cph",), heading=40.0)
    # Database image 1 looks 50 degrees away from its query.
    assert dataset.queries.keys == ("cph-q0", "cph-q2", "cph-q3", "cph-q4")
    assert read(tmp_path, cities=("cph",), heading=50.0).num_removed == 1


def test_the_challenge_of_msls_has_no_positives(tmp_path: Path) -> None:
    dataset = read(msls_city(tmp_path, "miami", "test"), name="msls-challenge", cities=("miami",))
    assert dataset.positives is None
    assert (len(dataset.database), len(dataset.queries)) == (7, 7)  # panoramas are not known


def test_a_challenge_city_with_all_tables_has_positives(tmp_path: Path) -> None:
    msls_city(tmp_path, "miami")
    (tmp_path / "train_val").rename(tmp_path / "test")
    dataset = read(tmp_path, name="msls-challenge", cities=("miami",))
    assert positives(dataset) == EACH_ITS_OWN


def test_some_cities_with_positions_and_some_without_are_an_error(tmp_path: Path) -> None:
    msls_city(msls_city(tmp_path, "cph"), "miami", "test")
    with pytest.raises(FormatError, match=r"or none, got only \['cph'\]"):
        read(tmp_path, name="msls", cities=("cph", "miami"))


@pytest.mark.parametrize("table", ["seq_info", "subtask_index", "raw", "postprocessed"])
def test_each_table_of_msls_is_needed(tmp_path: Path, table: str) -> None:
    (msls_city(tmp_path, "cph") / f"train_val/cph/query/{table}.csv").unlink()
    with pytest.raises(FileNotFoundError, match=rf"table must exist, got .*{table}\.csv"):
        read(tmp_path, cities=("cph",))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        pytest.param("seq_info", "cph-q3", "../q3", "key must name an image", id="key-path"),
        pytest.param("seq_info", "cph-q3", "cph q3", "key must name an image", id="key-space"),
        pytest.param("raw", "cph-q3", "cph-q9", "must be 'cph-q3' as in seq_info", id="other-key"),
        pytest.param("raw", "6,cph-q6,0,0,90,,False\n", "", "one row for each of the 7", id="rows"),
        pytest.param("raw", "True", "maybe", "pano must be True or False, got 'maybe'", id="pano"),
        pytest.param("raw", ",90,", ",north,", "ca must be a finite number", id="angle"),
        pytest.param("subtask_index", ",all", ",any", "must have columns all", id="subtask"),
        pytest.param("postprocessed", "500010.0", "nan", "easting must be a finite", id="nan"),
        pytest.param("postprocessed", "500010.0", "", "easting must be a finite", id="no-easting"),
    ],
)
def test_wrong_tables_of_msls_are_an_error(
    tmp_path: Path, table: str, old: str, new: str, message: str
) -> None:
    path = msls_city(tmp_path, "cph") / f"train_val/cph/query/{table}.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FormatError, match=message):
        read(tmp_path, cities=("cph",))


def test_a_row_of_msls_without_its_image_is_an_error(tmp_path: Path) -> None:
    (msls_city(tmp_path, "cph") / "train_val/cph/query/images/cph-q3.jpg").unlink()
    with pytest.raises(FormatError, match=r"1 missing of 6: 'train_val/cph/query/images/cph-q3"):
        read(tmp_path, cities=("cph",))


@pytest.mark.parametrize(
    ("cities", "error", "message"),
    [
        (("paris",), FileNotFoundError, "city must be a folder in .*train_val', got 'paris'"),
        (("../x",), FileNotFoundError, "city must be a folder"),
        (("",), FileNotFoundError, "city must be a folder"),
        (("cph", "cph"), OpenDelgError, "cities must be distinct"),
    ],
)
def test_wrong_cities_are_an_error(
    tmp_path: Path, cities: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(msls_city(tmp_path, "cph"), cities=cities)


def test_two_layouts_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    utm_folder(dbstruct(tmp_path))
    with pytest.raises(OpenDelgError, match=r"got the layouts of pitts30k, utm in .* --dataset"):
        read(tmp_path)
    assert read(tmp_path, name="utm").layout == "utm"


def test_a_folder_of_anything_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OpenDelgError, match="must have a known layout"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="dataset must be an existing folder"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 25.0, "frames": 1.0}, "radius must be given without frames"),
        ({"frames": 3.0}, "must fit the dataset 'utm', got frames"),
        ({"cities": ("cph",)}, "must fit the dataset 'utm', got cities"),
        ({"subtask": "d2n"}, "must fit the dataset 'utm', got subtask"),
        ({"name": "utm", "csv": Path("x.csv")}, "must fit the dataset 'utm', got csv"),
        ({"name": "utm", "mat": Path("x.mat")}, "must fit the dataset 'utm', got mat"),
        ({"name": "nordland", "radius": 5.0}, "must fit the dataset 'nordland', got radius"),
        ({"name": "msls", "one_per_panorama": True}, "got one-per-panorama"),
        ({"name": "csv"}, "csv must be given"),
        ({"name": "moon"}, "dataset must be one of pitts30k, .*, got 'moon'"),
        ({"radius": float("nan")}, "radius must be between"),
        ({"radius": float("inf")}, "radius must be between"),
        ({"heading": 181.0}, "heading must be between 0 and 180"),
    ],
)
def test_options_that_do_not_fit_are_an_error(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OpenDelgError, match=message):
        read(utm_folder(tmp_path), **options)


def test_a_part_of_a_benchmark_is_not_comparable(tmp_path: Path) -> None:
    (note,) = [note for note in read(dbstruct(tmp_path)).notes if "NOT COMPARABLE" in note]
    assert note.endswith("the whole has 10,000 database images and 6,816 queries")


def test_where_all_frames_are_near_nothing_is_said_of_metres(tmp_path: Path) -> None:
    with pytest.raises(OpenDelgError, match=r"beyond 99 frames, got none for any of 3 .*'$"):
        read(frames_folder(tmp_path), name="nordland", frames=99)
