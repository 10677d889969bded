from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendelg.collection import Collection
from opendelg.collection.packing import pack_local, unpack_local
from opendelg.datasets.revisited import LISTS, find_revisited_photos, read_revisited
from opendelg.errors import FormatError, OpenDelgError
from opendelg.evaluation.cropped import CroppedQuery, extract_queries, reduced_from
from opendelg.evaluation.distractor_sources import find_distractors
from opendelg.evaluation.distractors import Distractors, extract_distractors
from opendelg.evaluation.groups import index_whole
from opendelg.evaluation.revisited import evaluate_revisited, measure_revisited, report_revisited
from opendelg.evaluation.revisited_database import RevisitedDatabase
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.features import LocalFeatures
from opendelg.image import read_image
from opendelg.indexing import plan_indexing
from opendelg.metrics.revisited import LEVELS, average_precision, ground_truth, precision_at
from opendelg.recipes import recipe_of
from opendelg.search import SearchConfig, settings_for
from opendelg.verification import VerificationSettings, verify
from tests.revisited_samples import (
    DATABASE,
    GROUND_TRUTH,
    distractor_files,
    write_dataset,
    write_folder,
    write_tar,
)

RERANK = 4
NUM_OTHERS = 7


@pytest.fixture(scope="module")
def extractor(tiny_weights, tiny_runtime) -> Extractor:
    config = ExtractionConfig(
        max_size=128, scales=(0.7, 1.0), global_scales=(1.0,), max_keypoints=80
    )
    return Extractor(tiny_weights, config, tiny_runtime)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("roxford5k") / "d")


@pytest.fixture(scope="module")
def queries(folder, extractor) -> dict[int, CroppedQuery]:
    return dict(enumerate(extract_queries(listed(folder), extractor)))


@pytest.fixture
def collection(tmp_path, extractor) -> Iterator[Collection]:
    with Collection.create(tmp_path / "c", recipe_of(extractor)) as opened:
        yield opened


@pytest.fixture
def others(tmp_path) -> Path:
    return write_folder(tmp_path / "others", distractor_files(NUM_OTHERS))


def listed(folder: Path) -> list[tuple[str, Path, Any]]:
    dataset = read_revisited(folder, "roxford5k")
    return [
        (name, folder / "jpg" / f"{name}.jpg", tuple(box.tolist()))
        for name, box in zip(dataset.query_names, dataset.boxes, strict=True)
    ]


def database_of(
    folder: Path,
    collection: Collection,
    extractor: Extractor,
    distractors: Distractors | None = None,
) -> RevisitedDatabase:
    dataset = read_revisited(folder, "roxford5k")
    photos = find_revisited_photos(dataset, folder)
    index_whole(collection, extractor, plan_indexing(collection, list(photos.database.values())))
    return RevisitedDatabase.of(dataset, photos, collection, distractors)


def run_of(database, queries, extractor, rerank: int = RERANK, **options: Any) -> Run:
    return evaluate_revisited(database, queries, extractor, SearchConfig(rerank=rerank), **options)


@pytest.fixture
def run(folder, collection, extractor, queries, others) -> Run:
    distractors = extract_distractors(find_distractors(others), collection, extractor)
    return run_of(database_of(folder, collection, extractor, distractors), queries, extractor)


# The protocol said again, plainly: whole rankings, every image extracted on its own.


def plain_figures(folder: Path, others: Path, extractor: Extractor) -> dict[str, dict[str, Any]]:
    paths = [folder / "jpg" / f"{name}.jpg" for name in DATABASE]
    paths += [others / name for name in sorted(distractor_files(NUM_OTHERS))]
    images = [extractor.extract(read_image(path)) for path in paths]
    found: dict[str, dict[str, list[float]]] = {}
    for (_, path, box), entry in zip(listed(folder), GROUND_TRUTH["gnd"], strict=True):
        query = extractor.extract(read_image(path), box)
        similarities = [float(query.global_descriptor @ i.global_descriptor) for i in images]
        order = sorted(range(len(images)), key=lambda i: (-similarities[i], i))
        for level in LEVELS:
            truth = ground_truth(level, *(np.array(entry[key], np.int64) for key in LISTS))
            without_junk = [i for i in order if i not in truth.junk]
            ranked = {
                "global": order,
                "verified": plain_reranked(order, query, images, extractor, "standard"),
                "official": plain_reranked(without_junk, query, images, extractor, "paper"),
            }
            for way, ids in ranked.items():
                row = found.setdefault(f"{way} {level}", {})
                row.setdefault("mAP", []).append(average_precision(np.array(ids), truth))
                for k in (1, 5, 10):
                    row.setdefault(f"mP@{k}", []).append(precision_at(np.array(ids), truth, k))
    return found


def plain_reranked(order, query, images, extractor, mode) -> list[int]:
    settings = settings_for(extractor.config, VerificationSettings(mode=mode))
    inliers = {}
    for i in order[:RERANK]:
        kept = unpack_local(pack_local(images[i].local, "int8"))  # as a collection keeps them
        inliers[i] = verify(query.local, kept, query.size, images[i].size, settings).num_inliers
    head = sorted(order[:RERANK], key=lambda i: (-inliers[i], order.index(i)))
    return head + order[RERANK:]


def test_all_figures_are_those_of_the_protocol_said_plainly(run, folder, others, extractor) -> None:
    found = measure_revisited(run)
    expected = plain_figures(folder, others, extractor)
    assert found.keys() == expected.keys()
    for stage, row in expected.items():
        for measure, values in row.items():
            np.testing.assert_allclose(found[stage][measure], values, atol=1e-12, err_msg=stage)


def test_a_saved_run_has_the_same_report(run, tmp_path) -> None:
    write_run(tmp_path / "run.zip", run)
    assert report_revisited(read_run(tmp_path / "run.zip")) == report_revisited(run)


def test_junk_of_a_level_leaves_its_official_ranking_before_verification(run) -> None:
    easy = run.stages["official easy"][0]
    assert set(easy.ids.tolist()) & {1, 6} == set()  # hard and junk
    assert np.count_nonzero(easy.num_inliers >= 0) == RERANK
    verified = run.stages["verified"][0]
    assert {1, 6} <= set(verified.ids.tolist())
    assert np.count_nonzero(verified.num_inliers >= 0) == RERANK


def test_what_a_reader_must_know_is_noted(run) -> None:
    truth, distractors = run.notes
    assert truth.startswith("NOT COMPARABLE: the ground truth is not the published one of 70")
    assert distractors.startswith("DISTRACTORS: 7, not the 1,001,001 of R1M: not comparable")


def test_the_run_names_its_images_and_boxes(run) -> None:
    assert run.num_database == len(DATABASE) + NUM_OTHERS
    assert run.names[0] == "db_0"
    assert run.names[len(DATABASE)] == "0/other_0.jpg"
    assert run.extra["boxes"].tolist()[0] == [16, 8, 144, 120]
    assert run.about["dataset"]["distractors"]["images"] == NUM_OTHERS
    assert run.about["official_verification"]["mode"] == "paper"


def test_without_verification_there_is_the_global_stage_only(
    folder, collection, extractor, queries
) -> None:
    run = run_of(database_of(folder, collection, extractor), queries, extractor, rerank=0)
    assert list(run.stages) == ["global"]
    assert "official_verification" not in run.about


@pytest.mark.parametrize(
    ("modes", "stages"),
    [
        (["standard"], ["global", "verified"]),
        (["paper"], ["global", "official easy", "official medium", "official hard"]),
    ],
)
def test_one_way_of_verification_may_be_left_out(
    folder, collection, extractor, queries, modes, stages
) -> None:
    database = database_of(folder, collection, extractor)
    assert list(run_of(database, queries, extractor, modes=modes).stages) == stages


def test_missing_photos_leave_the_truth_and_are_noted(
    tmp_path, collection, extractor, queries
) -> None:
    folder = write_dataset(tmp_path / "d")
    (folder / "jpg" / "db_2.jpg").unlink()
    run = run_of(database_of(folder, collection, extractor), {0: queries[0]}, extractor)
    assert run.notes[0].startswith("SUBSET: 1 of 2 queries, 7 of 8 database images: not comparable")
    assert run.truth["easy"][0].tolist() == [0]


# Queries.


def test_queries_are_cropped_to_their_boxes(folder, extractor, queries) -> None:
    name, path, box = listed(folder)[0]
    expected = extractor.extract(read_image(path), box)
    assert (queries[0].name, queries[0].box) == (name, box)
    assert queries[0].features.global_descriptor.tolist() == expected.global_descriptor.tolist()
    whole = extractor.extract(read_image(path))
    assert queries[0].features.global_descriptor.tolist() != whole.global_descriptor.tolist()
    keypoints: LocalFeatures = queries[0].features.local
    assert keypoints.keypoints.min() >= 8


def test_uncropped_queries_are_whole_photos(folder, extractor) -> None:
    first, _ = extract_queries(listed(folder), extractor, is_cropped=False)
    whole = extractor.extract(read_image(listed(folder)[0][1]))
    assert first.box == (0, 0, 192, 128)
    assert first.features.global_descriptor.tolist() == whole.global_descriptor.tolist()


def test_boxes_of_reduced_photos_are_scaled(folder, extractor) -> None:
    name, path, _ = listed(folder)[0]
    (query,) = extract_queries([(name, path, (16, 32, 512, 640))], extractor, original_side=1024)
    assert query.box == (3, 6, 96, 120)


def test_a_box_beyond_its_photo_is_an_error(folder, extractor) -> None:
    name, path, _ = listed(folder)[0]
    with pytest.raises(
        OpenDelgError, match=r"photo of 192 x 128 px, got .* for 'all_souls_1'.*--o"
    ):
        list(extract_queries([(name, path, (16, 32, 512, 640))], extractor))


def test_boxes_beyond_their_photos_tell_that_these_are_reduced(folder) -> None:
    (first, second) = listed(folder)
    assert reduced_from([first, second]) is None
    assert reduced_from([first, (second[0], second[1], (1, 1, 300, 100))]) == 1024


# Distractors.


def test_tars_and_folders_give_the_same_figures(
    run, folder, tmp_path, extractor, queries, others
) -> None:
    files = distractor_files(NUM_OTHERS)
    names = sorted(files)
    write_tar(tmp_path / "tars" / "1.tar.gz", {name: files[name] for name in names[:4]})
    write_tar(tmp_path / "tars" / "2.tar", {name: files[name] for name in names[4:]})
    source = find_distractors(tmp_path / "tars")
    with Collection.create(tmp_path / "other", recipe_of(extractor)) as collection:
        distractors = extract_distractors(source, collection, extractor)
        again = run_of(database_of(folder, collection, extractor, distractors), queries, extractor)
    assert report_revisited(again) == report_revisited(run)
    assert again.names[len(DATABASE)] == "1.tar.gz/0/other_0.jpg"


def test_local_features_are_extracted_of_verified_distractors_only(
    folder, collection, extractor, queries, tmp_path
) -> None:
    tar = write_tar(tmp_path / "d.tar", distractor_files(20))
    distractors = extract_distractors(find_distractors(tar), collection, extractor)
    assert len(collection) == 0
    run = run_of(database_of(folder, collection, extractor, distractors), queries, extractor)
    verified = {
        image_id
        for name in run.stages
        for ranking in run.stages[name]
        for image_id in ranking.ids[ranking.num_inliers >= 0].tolist()
        if image_id >= len(DATABASE)
    }
    assert 0 < len(verified) < 20
    assert len(collection) == len(DATABASE) + len(verified)


@contextmanager
def stopping(_what: str, _total: int) -> Iterator[Any]:
    """A progress display whose user presses Ctrl-C at the third image."""
    done: list[object] = []

    def advance(name: object) -> None:
        done.append(name)
        if len(done) == 3:
            raise KeyboardInterrupt

    yield advance


@contextmanager
def counted(told: list[object], total: int) -> Iterator[Any]:
    told.append(total)
    yield told.append


def test_extraction_goes_on_where_it_was_stopped(others, collection, extractor) -> None:
    source = find_distractors(others)
    with pytest.raises(KeyboardInterrupt):
        extract_distractors(source, collection, extractor, stopping, shard_images=2)
    told: list[object] = []
    found = extract_distractors(source, collection, extractor, lambda _, n: counted(told, n))
    assert told == [4, *sorted(distractor_files(NUM_OTHERS))[3:]]
    assert len(found) == NUM_OTHERS
    told.clear()
    extract_distractors(source, collection, extractor, lambda _, n: counted(told, n))
    assert told == []


def test_tars_that_were_read_are_not_read_again(tmp_path, collection, extractor) -> None:
    tar = write_tar(tmp_path / "d.tar.gz", distractor_files(3))
    extract_distractors(find_distractors(tar), collection, extractor)
    size = tar.stat().st_size
    tar.write_bytes(b"x" * size)
    again = extract_distractors(find_distractors(tar), collection, extractor)
    assert len(again) == 3
    tar.write_bytes(b"x" * (size + 1))
    with pytest.raises(FormatError, match=r"tar must be the one that was read before, of \d+ byte"):
        extract_distractors(find_distractors(tar), collection, extractor)


def test_what_precedes_damage_is_kept(tmp_path, collection, extractor) -> None:
    tar = write_tar(tmp_path / "d.tar", distractor_files(3))
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OpenDelgError, match=r"tar must be readable, got .*d\.tar"):
        extract_distractors(find_distractors(tar), collection, extractor)
    tar.write_bytes(whole)
    read: list[int] = []

    @contextmanager
    def tell(_what: str) -> Iterator[Any]:
        yield lambda done, total: read.append(done)

    found = extract_distractors(find_distractors(tar), collection, extractor, byte_progress=tell)
    assert len(found) == 3
    assert read == sorted(read)
    assert 0 < read[-1] <= len(whole)


def test_unreadable_distractors_are_left_out_and_noted(others, collection, extractor) -> None:
    (others / "1" / "other_2.jpg").write_bytes(b"no photo")
    found = extract_distractors(find_distractors(others), collection, extractor)
    assert len(found) == NUM_OTHERS - 1
    assert found.notes()[1].startswith("1 distractors could not be read and were left out: '1/oth")
    assert found.about()["unreadable"] == 1


def test_sources_of_equal_names_do_not_mix(tmp_path, collection, extractor) -> None:
    (first, second) = (
        extract_distractors(
            find_distractors(write_folder(tmp_path / place, {"a.jpg": data})),
            collection,
            extractor,
        )
        for place, data in zip(("x", "y"), list(distractor_files(2).values()), strict=True)
    )
    descriptors = [next(found.blocks())[1].tolist() for found in (first, second)]
    assert descriptors[0] != descriptors[1]


def test_distractors_that_are_gone_do_not_count(others, collection, extractor) -> None:
    extract_distractors(find_distractors(others), collection, extractor)
    (others / "0" / "other_1.jpg").unlink()
    found = extract_distractors(find_distractors(others), collection, extractor)
    assert len(found) == NUM_OTHERS - 1
    assert [positions.tolist() for positions, _ in found.blocks()] == [[0, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got 0 tars and 0 images"),
        (["a.jpg", "b.tar"], "got 1 tars and 1 images .*; keep one of them"),
    ],
)
def test_a_source_is_images_or_tars(tmp_path, names, message) -> None:
    write_folder(tmp_path / "d", dict.fromkeys(["notes.txt", *names], b"x"))
    with pytest.raises(OpenDelgError, match=message):
        find_distractors(tmp_path / "d")


def test_a_source_must_exist(tmp_path) -> None:
    with pytest.raises(OpenDelgError, match="distractors must be a folder or a tar, got none"):
        find_distractors(tmp_path / "nowhere")
