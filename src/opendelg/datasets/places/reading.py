"""One way to any place recognition dataset: find out its layout, read it, and say the rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opendelg.datasets.places.dataset import RADIUS_M, NearRule, PlacesDataset
from opendelg.datasets.places.dbstruct import SPECIFICATIONS, find_specification, read_dbstruct
from opendelg.datasets.places.msls import CHALLENGE_CITIES, VALIDATION_CITIES, read_msls
from opendelg.datasets.places.nordland import FRAMES, frame_rule, read_nordland
from opendelg.datasets.places.table import read_places_table
from opendelg.datasets.places.utm_names import find_folder, list_images, read_utm_names
from opendelg.errors import OpenDelgError

NAMES = ("pitts30k", "tokyo247", "msls", "msls-challenge", "nordland", "utm", "csv")
# Database images and queries of the whole benchmarks.  Sources: NetVLAD, CVPR 2016 (Pitts30k);
# gmberton/deep-visual-geo-localization-benchmark, issue 3 (Tokyo 24/7); mapillary/mapillary_sls,
# issue 31, with the 740 queries that have a positive, and 11,084 where all are kept; `nordland`.
COUNTS = {
    "pitts30k": {(10_000, 6_816)},
    "tokyo247": {(75_984, 315)},
    "msls": {(18_871, 740), (18_871, 11_084)},
    "nordland": {(27_592, 27_592), (27_592, 2_760), (3_450, 3_450)},
}


@dataclass(frozen=True)
class PlacesOptions:
    """What is evaluated and by what rule; None is what the dataset says."""

    name: str | None = None  # one of NAMES; None: found out
    csv: Path | None = None  # table of positions
    mat: Path | None = None  # NetVLAD's specification
    radius: float | None = None  # m
    frames: float | None = None  # instead of a radius
    heading: float | None = None  # greatest difference in degrees; None: not compared
    cities: tuple[str, ...] = ()  # of MSLS
    subtask: str = "all"  # of MSLS
    one_per_panorama: bool | None = None

    @property
    def rule(self) -> NearRule:
        """What is near by these options."""
        if self.frames is not None:
            return replace(frame_rule(self.frames), max_heading_deg=self.heading)
        return NearRule(self.radius or RADIUS_M, max_heading_deg=self.heading)


def read_places(folder: Path, options: PlacesOptions) -> PlacesDataset:
    """The dataset in a folder, with notes on the rules that its figures follow.

    Raises:
        FileNotFoundError: If the folder or a part of the layout does not exist.
        OpenDelgError: If the layout is not clear, the options do not fit it, or the data are not
            as they should be (FormatError).
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset must be an existing folder, got {str(folder)!r}")
    if options.radius is not None and options.frames is not None:
        raise OpenDelgError("radius must be given without frames, got both")
    name = options.name or _detected(folder, options)
    dataset = replace(_read(folder, name, options), name=name)
    return replace(dataset, notes=(*dataset.notes, *_notes(dataset)))


def _detected(folder: Path, options: PlacesOptions) -> str:
    """The name of the layout of a folder."""
    if options.csv is not None:
        return "csv"
    if options.mat is not None:
        named = [name for name, file in SPECIFICATIONS.items() if file == options.mat.name]
        return named[0] if named else "dbstruct"
    found = [name for name in SPECIFICATIONS if find_specification(folder, name) is not None]
    if (folder / "train_val").is_dir():
        found.append("msls")
    if find_folder(folder) is not None:
        found.append("utm")
    if len(found) == 1:
        return found[0]
    if found:
        raise OpenDelgError(
            f"dataset must be one, got the layouts of {', '.join(found)} in {str(folder)!r}; "
            "choose by --dataset"
        )
    raise OpenDelgError(
        "dataset must have a known layout (database and queries; train_val; pitts30k_test.mat or "
        f"tokyo247.mat), got none in {str(folder)!r}; choose by --dataset, or give a table by --csv"
    )


def _read(folder: Path, name: str, options: PlacesOptions) -> PlacesDataset:
    _require_fitting(name, options)
    match name:
        case "csv" if options.csv is not None:
            return read_places_table(
                options.csv, folder, options.rule, bool(options.one_per_panorama)
            )
        case "csv":
            raise OpenDelgError("csv must be given for a dataset in a table, got none")
        case "msls":
            cities = options.cities or VALIDATION_CITIES
            return read_msls(folder, options.rule, cities, options.subtask)
        case "msls-challenge":
            cities = options.cities or CHALLENGE_CITIES
            return read_msls(folder, options.rule, cities, options.subtask)
        case "nordland" if not _has_utm_names(folder):
            return read_nordland(folder, FRAMES if options.frames is None else options.frames)
        case "pitts30k" | "tokyo247" | "dbstruct":
            return _read_netvlad(folder, name, options)
        case "nordland" | "utm":
            return read_utm_names(folder, options.rule, bool(options.one_per_panorama))
        case _:
            raise OpenDelgError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")


def _read_netvlad(folder: Path, name: str, options: PlacesOptions) -> PlacesDataset:
    """By the original specification if there is one, else by names with positions."""
    specification = options.mat or find_specification(folder, name)
    if specification is not None:
        once = options.one_per_panorama
        once = name == "tokyo247" if once is None else once
        return read_dbstruct(folder, specification, options.radius, once)
    if find_folder(folder) is None:
        raise FileNotFoundError(
            f"dataset must have {SPECIFICATIONS[name]} or the folders database and queries, got "
            f"neither in {str(folder)!r}"
        )
    return read_utm_names(folder, options.rule, bool(options.one_per_panorama))


def _has_utm_names(folder: Path) -> bool:
    place = find_folder(folder)
    names = [] if place is None else list_images(place, "database")
    return bool(names) and "@" in Path(names[0]).name


def _require_fitting(name: str, options: PlacesOptions) -> None:
    """Refuse options that the layout would not look at."""
    is_msls = name in ("msls", "msls-challenge")
    by_mat = name in ("pitts30k", "tokyo247", "dbstruct")
    unused = {
        "csv": options.csv is not None and name != "csv",
        "mat": options.mat is not None and not by_mat,
        "frames": options.frames is not None and name not in ("nordland", "csv"),
        "radius": options.radius is not None and name == "nordland",
        "heading": options.heading is not None and (by_mat or name == "nordland"),
        "cities": bool(options.cities) and not is_msls,
        "subtask": options.subtask != "all" and not is_msls,
        "one-per-panorama": options.one_per_panorama is not None
        and (is_msls or name == "nordland"),
    }
    wrong = [option for option, is_unused in unused.items() if is_unused]
    if wrong:
        raise OpenDelgError(f"options must fit the dataset {name!r}, got {', '.join(wrong)}")


def _notes(dataset: PlacesDataset) -> Iterator[str]:
    """The rules in words, and what makes figures differ from published ones."""
    if dataset.positives is None:
        return
    yield f"a database image within {dataset.rule} of a query is right"
    if dataset.num_removed:
        yield f"{dataset.num_removed} queries without a positive are left out"
    if dataset.num_without_positives:
        yield f"{dataset.num_without_positives} queries without a positive count as failures"
    if dataset.panoramas is not None:
        yield "only the first result of each panorama counts"
    elif dataset.name == "tokyo247":
        yield (
            "every view of a panorama counts, as in Berton et al. 2022; NetVLAD and Patch-NetVLAD "
            "count each panorama once"
        )
    rule = dataset.rule
    if rule.unit == "m" and (rule.radius != RADIUS_M or rule.max_heading_deg is not None):
        yield f"NOT COMPARABLE with published figures, whose rule is {RADIUS_M:g} m"
    known = COUNTS.get(dataset.name)
    counts = len(dataset.database), len(dataset.queries)
    if known is not None and counts not in known:
        yield f"NOT COMPARABLE with published figures: the whole has {_shown(sorted(known))}"


def _shown(counts: Sequence[tuple[int, int]]) -> str:
    return " or ".join(f"{n:,} database images and {q:,} queries" for n, q in counts)
