from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest

from opendelg.errors import OpenDelgError
from opendelg.evaluation import preparation
from opendelg.evaluation.landmark_recognition import evaluate_landmark_recognition
from opendelg.evaluation.landmark_retrieval import evaluate_landmark_retrieval
from opendelg.evaluation.places import evaluate_places
from opendelg.evaluation.preparation import PreparationConfig, PreparedDatabase, refuse_expansion
from opendelg.evaluation.revisited import evaluate_revisited
from opendelg.expansion import AugmentedDatabase, ExpansionConfig, expand, nearest
from opendelg.search import SearchConfig
from opendelg.whitening import fit_whitening
from tests.collection_samples import unit_rows

ALL = PreparationConfig(whiten=6, shrinkage=0.3, augment=4, alpha=2.0)


@pytest.fixture
def database() -> np.ndarray:
    return unit_rows(np.random.default_rng(1), 30, 8)


@pytest.fixture
def queries() -> np.ndarray:
    return unit_rows(np.random.default_rng(2), 5, 8)


def test_by_default_nothing_is_done(queries: np.ndarray, database: np.ndarray) -> None:
    prepared = PreparedDatabase(database)
    asked = prepared.expanded(prepared.queries(queries), 0, 3.0)
    np.testing.assert_array_equal(asked, queries)
    np.testing.assert_array_equal(prepared.similarities(asked), queries @ database.T)


def test_steps_follow_each_other(queries: np.ndarray, database: np.ndarray) -> None:
    prepared = PreparedDatabase(database, ALL)
    whitening = fit_whitening(database, 6, 0.3)
    augmented = AugmentedDatabase(whitening.apply(database), 4, 2.0).descriptors
    white = whitening.apply(queries)
    rows, values = nearest(white, augmented, 3)
    expected = expand(white, augmented[rows], values, 1.5) @ augmented.T
    asked = prepared.expanded(prepared.queries(queries), 3, 1.5)
    np.testing.assert_allclose(prepared.similarities(asked), expected, atol=1e-6)


def test_a_query_in_the_database_finds_what_it_would_if_it_were_not_there(
    database: np.ndarray,
) -> None:
    config = PreparationConfig(augment=4)
    own = np.arange(len(database))
    prepared = PreparedDatabase(database, config)
    asked = prepared.expanded(database, 3, 3.0, own)
    found = prepared.similarities(asked, own)
    assert (np.diag(found) == -np.inf).all()
    expected = np.stack([ranked_without(database, config, row) for row in own])
    np.testing.assert_allclose(found[~np.eye(30, dtype=bool)].reshape(30, 29), expected, atol=1e-6)


def ranked_without(database: np.ndarray, config: PreparationConfig, row: int) -> np.ndarray:
    others = PreparedDatabase(np.delete(database, row, axis=0), config)
    return others.similarities(others.expanded(database[[row]], 3, 3.0))[0]


def test_images_of_ones_choice_are_those_without_the_query(database: np.ndarray) -> None:
    prepared = PreparedDatabase(database, PreparationConfig(augment=4))
    rows = np.array([7, 0, 29])
    others = PreparedDatabase(database[np.arange(30) != 12], PreparationConfig(augment=4))
    np.testing.assert_allclose(
        prepared.expanded_with(database[12], rows, 3.0, own=12),
        others.expanded_with(database[12], np.array([7, 0, 28]), 3.0),
        atol=1e-6,
    )


def test_no_chosen_images_change_nothing(database: np.ndarray) -> None:
    none = np.zeros(0, np.int64)
    found = PreparedDatabase(database, ALL).expanded_with(database[0, :6], none, 3.0)
    np.testing.assert_array_equal(found, database[0, :6])


def test_blocks_of_any_size_give_the_same(
    database: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, own = PreparedDatabase(database, PreparationConfig(augment=4)), np.arange(30)
    whole = prepared.expanded(database, 99, 3.0, own)
    monkeypatch.setattr(preparation, "_BLOCK_BYTES", 1)
    np.testing.assert_allclose(prepared.expanded(database, 99, 3.0, own), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"whiten": -1}, "whiten must be at least 0, got -1"),
        ({"augment": -1}, "augment must be at least 0, got -1"),
        ({"shrinkage": 2.0}, "shrinkage must be between 0 and 1, got 2"),
        ({"alpha": -1.0}, "alpha must be a finite number of at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        PreparationConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("expansion", [{"nearest": 3}, {"verified": True}])
def test_expansion_is_refused_where_it_would_not_be_done(expansion: dict[str, int]) -> None:
    refuse_expansion(ExpansionConfig(), "places")
    with pytest.raises(OpenDelgError, match=r"must not be expanded under places, got Exp.*groups"):
        refuse_expansion(ExpansionConfig(**expansion), "places")  # type: ignore[arg-type]


ANY = Mock()  # nothing is looked at before
PROTOCOLS: dict[str, Callable[[SearchConfig], object]] = {
    "places": lambda config: evaluate_places(ANY, ANY, ANY, config),
    "retrieval": lambda config: evaluate_landmark_retrieval(ANY, ANY, ANY, config),
    "recognition": lambda config: evaluate_landmark_recognition(ANY, ANY, ANY, config),
    "revisited": lambda config: evaluate_revisited(ANY, ANY, ANY, config),
}


@pytest.mark.parametrize("evaluate", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_no_protocol_claims_an_expansion_that_it_did_not_do(
    evaluate: Callable[[SearchConfig], object],
) -> None:
    with pytest.raises(OpenDelgError, match="queries must not be expanded under"):
        evaluate(SearchConfig(expansion=ExpansionConfig(nearest=3)))
