from pathlib import Path

import pytest

from opendelg.evaluation.benchmarks import NEEDS, find_benchmarks
from opendelg.evaluation.protocols import (
    Groups,
    LandmarkRecognition,
    LandmarkRetrieval,
    Places,
    Revisited,
)
from tests.gldv2_samples import make_gldv2
from tests.place_samples import csv_file, dbstruct, msls_city, save, utm_folder
from tests.revisited_samples import write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One of each, in folders of any name and depth."""
    data = tmp_path / "data"
    write_dataset(data / "datasets" / "roxford5k")
    (data / "datasets" / "revisitop1m").mkdir()
    make_gldv2(data / "landmarks")
    dbstruct(data / "pitts")
    for city in ("cph", "sf"):
        msls_city(data / "msls", city)
    utm_folder(data / "nordland")
    utm_folder(data / "town")
    csv_file(data / "mine.csv", ["image,group,role", "0.png,a,query", "1.png,a,database"])
    csv_file(data / "other.csv", ["image,text"])
    for seed in range(2):
        save(data / "mine" / f"{seed}.png", seed)
    return data


def test_each_benchmark_is_found_by_its_files(data: Path) -> None:
    found = {one.name: one.place.relative_to(data).as_posix() for one in find_benchmarks(data)}
    assert list(found.items()) == [
        ("groups-mine", "mine.csv"),
        ("places-town", "town"),
        ("roxford5k", "datasets/roxford5k"),
        ("pitts30k", "pitts"),
        ("msls", "msls"),
        ("nordland", "nordland"),
        ("gldv2-retrieval", "landmarks"),
        ("gldv2-recognition", "landmarks"),
        ("roxford5k+r1m", "datasets/roxford5k"),
    ]


def test_what_is_found_is_read_by_its_protocol(data: Path, tmp_path: Path) -> None:
    found = {one.name: one for one in find_benchmarks(data)}
    read = {name: one.read(tmp_path) for name, one in found.items() if name != "roxford5k+r1m"}
    assert {name: type(one) for name, one in read.items()} == {
        "groups-mine": Groups,
        "places-town": Places,
        "roxford5k": Revisited,
        "pitts30k": Places,
        "msls": Places,
        "nordland": Places,
        "gldv2-retrieval": LandmarkRetrieval,
        "gldv2-recognition": LandmarkRecognition,
    }


def test_published_rules_are_used(data: Path, tmp_path: Path) -> None:
    found = {one.name: one.read(tmp_path) for one in find_benchmarks(data)[:-1]}
    oxford, pitts = found["roxford5k"], found["pitts30k"]
    assert isinstance(oxford, Revisited)
    assert (oxford.is_cropped, oxford.config.rerank) == (True, 100)
    assert oxford.modes == ("standard", "paper")
    assert isinstance(pitts, Places)
    assert pitts.config.verification.mode == "paper"
    recognition = found["gldv2-recognition"]
    assert isinstance(recognition, LandmarkRecognition)
    assert recognition.config.rerank == 10


def test_the_data_folder_may_be_the_dataset(data: Path) -> None:
    folder = data / "datasets" / "roxford5k"
    assert [one.place for one in find_benchmarks(folder)] == [folder, folder]


def test_of_two_places_the_one_of_that_name_is_taken(tmp_path: Path) -> None:
    part = write_dataset(tmp_path / "a_part")
    whole = write_dataset(tmp_path / "roxford5k")
    (found,) = find_benchmarks(tmp_path)
    assert (found.place, found.others) == (whole, (part,))


def test_nothing_is_looked_for_below_a_dataset_or_too_deep(tmp_path: Path) -> None:
    write_dataset(tmp_path / "roxford5k")
    utm_folder(tmp_path / "roxford5k" / "town")
    utm_folder(tmp_path / "a" / "b" / "c")
    utm_folder(tmp_path / ".hidden")
    assert [one.name for one in find_benchmarks(tmp_path)] == ["roxford5k"]


def test_every_need_names_a_place_below_the_data_folder() -> None:
    assert [name for name, text in NEEDS.items() if "/" not in text and "beside" not in text] == []


@pytest.mark.parametrize("name", ["absent", "file.txt"])
def test_data_must_be_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="data must be an existing folder, got"):
        find_benchmarks(tmp_path / name)
