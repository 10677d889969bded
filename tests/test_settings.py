import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from opendelg.errors import FormatError
from opendelg.settings import read_settings, settings_as_dict


@dataclass(frozen=True)
class Wheel:
    size: int = 28
    kind: Literal["road", "snow"] = "road"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be positive, got {self.size}")


@dataclass(frozen=True)
class Bicycle:
    name: str = "city"
    weight: float = 12.5
    gears: tuple[int, ...] = (3, 7)
    front: Wheel = field(default_factory=Wheel)
    spare: Wheel | None = None
    others: tuple[Wheel, ...] = ()


def test_absent_settings_keep_their_defaults():
    assert read_settings(Bicycle, {}, "a.yaml") == Bicycle()


def test_nested_settings_are_made():
    values = {"front": {"size": 20}, "spare": {"kind": "snow"}, "others": [{"size": 1}, {}]}
    expected = Bicycle(front=Wheel(20), spare=Wheel(kind="snow"), others=(Wheel(1), Wheel()))
    assert read_settings(Bicycle, values, "a.yaml") == expected


def test_lists_become_tuples():
    assert read_settings(Bicycle, {"gears": [1, 2, 3]}, "a.yaml").gears == (1, 2, 3)


def test_yamls_text_for_numbers_is_read():
    # YAML 1.1 takes 1e-3 for text.
    assert read_settings(Bicycle, {"weight": "1e-3"}, "a.yaml").weight == 1e-3


def test_values_are_not_changed():
    values = {"front": {"size": 20}}
    read_settings(Bicycle, values, "a.yaml")
    assert values == {"front": {"size": 20}}


def test_settings_survive_json():
    settings = Bicycle(gears=(1,), spare=Wheel(3), others=(Wheel(4),))
    plain = json.loads(json.dumps(settings_as_dict(settings)))
    assert read_settings(Bicycle, plain, "json") == settings


def test_paths_become_text():
    @dataclass(frozen=True)
    class Place:
        path: Path = Path("a/b")

    assert settings_as_dict(Place()) == {"path": "a/b"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            {"nam": "x"}, "got 'nam' in a.yaml; did you mean 'name'", id="nearest-is-offered"
        ),
        pytest.param(
            {"zzz": 1}, "got 'zzz' in a.yaml; known are name, weight, gears", id="known-are-listed"
        ),
        pytest.param({"front": {"sice": 3}}, "'sice' in a.yaml, front; .*'size'", id="nested"),
        pytest.param({"spare": {"sice": 3}}, "'sice' in a.yaml, spare; .*'size'", id="optional"),
        pytest.param(
            {"others": [{}, {"sice": 3}]}, "'sice' in a.yaml, others; .*'size'", id="in-a-list"
        ),
        pytest.param({3: "x"}, "setting must be a known name, got 3 in a.yaml", id="no-text"),
    ],
)
def test_unknown_names_are_refused(values, message):
    with pytest.raises(FormatError, match=message):
        read_settings(Bicycle, values, "a.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"weight": "heavy"}, "weight: .*number.* in a.yaml", id="type"),
        pytest.param({"front": {"kind": "sand"}}, "front.kind: .*'road' or 'snow'", id="choice"),
        pytest.param({"front": {"size": 0}}, "size must be positive, got 0 in a.yaml", id="range"),
        pytest.param({"front": None}, "front: .* in a.yaml", id="none"),
        pytest.param({"front": 3, "gears": 4}, "gears: .*; front: .*", id="all-are-told"),
        pytest.param([1], r"settings must be a mapping, got \[1\] in a.yaml", id="list"),
        pytest.param(None, "settings must be a mapping, got None in a.yaml", id="empty-file"),
    ],
)
def test_wrong_values_are_refused(values, message):
    with pytest.raises(FormatError, match=message):
        read_settings(Bicycle, values, "a.yaml")
