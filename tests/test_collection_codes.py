import numpy as np
import pytest

from opendelg.collection.codes import Codes, measured_candidates, rotated
from tests.collection_samples import unit_rows


def clustered(num_rows, num_columns, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit_rows(rng, num_rows // 20, num_columns)
    rows = np.repeat(centres, 20, axis=0) + 0.6 * unit_rows(rng, num_rows, num_columns)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("num_columns", [1, 7, 16, 200, 512])
def test_the_rotation_keeps_products(num_columns):
    rows = unit_rows(np.random.default_rng(0), 5, num_columns)
    turned = np.stack([rotated(row) for row in rows])
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=1e-5)


def test_the_rotation_is_the_same_everywhere():
    expected = np.float32([-1, 1, -1, -1, 1, -1, 1, 1]) / np.float32(np.sqrt(8))
    turned = rotated(np.float32([0, 1, 0, 0, 0, 0, 0, 0]))
    assert set(np.abs(turned).tolist()) == {expected.max()}
    np.testing.assert_array_equal(turned, rotated(np.float32([0, 1, 0, 0, 0, 0, 0, 0])))


def test_the_nearest_are_among_the_best_by_estimate():
    rows = clustered(2000, 256)
    codes = Codes.encode(rows)
    for probe in (3, 999, 1998):
        expected = np.argsort(-(rows @ rows[probe]))[:20]
        found, estimates = codes.search(rows[probe], 200)
        assert np.isin(expected, found).all()
        assert (np.diff(estimates) <= 0).all()


def test_estimates_are_near_the_products():
    rows = clustered(2000, 256)
    found, estimates = Codes.encode(rows).search(rows[5], 2000)
    np.testing.assert_allclose(estimates, rows[found] @ rows[5], atol=0.25)
    assert abs(np.mean(estimates - rows[found] @ rows[5])) < 0.02


def test_codes_come_back_from_bytes():
    rows = clustered(200, 64)
    codes = Codes.encode(rows)
    again = Codes.from_bytes(codes.to_bytes(), 64)
    np.testing.assert_array_equal(again.search(rows[1], 30), codes.search(rows[1], 30))


@pytest.mark.parametrize("content", [b"", b"rubbish" * 20])
def test_other_bytes_are_no_codes(content):
    with pytest.raises(ValueError, match="codes must be those of faiss"):
        Codes.from_bytes(content, 64)


def test_codes_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="codes must be of 300 dimensions"):
        Codes.from_bytes(Codes.encode(clustered(40, 64)).to_bytes(), 300)


def test_no_more_are_found_than_there_are():
    rows = clustered(40, 64)
    found, _ = Codes.encode(rows).search(rows[0], 1000)
    assert sorted(found.tolist()) == list(range(40))


def test_the_fewest_candidates_that_find_the_nearest_are_taken():
    rows = clustered(3000, 512)
    codes = Codes.encode(rows)
    chosen = measured_candidates(codes, rows)
    assert chosen in (500, 1000)
    products = rows @ rows[777]
    products[777] = -1
    expected = np.argsort(-products)[:100]
    assert np.isin(expected, codes.search(rows[777], chosen)[0]).mean() > 0.95
    assert np.isin(expected, codes.search(rows[777], 200)[0]).mean() < 0.95


def test_codes_that_do_not_serve_are_told(monkeypatch):
    monkeypatch.setattr("opendelg.collection.codes._NUM_CANDIDATES", (200, 500))
    rows = unit_rows(np.random.default_rng(0), 5000, 64)
    assert measured_candidates(Codes.encode(rows), rows) is None


def test_one_descriptor_needs_no_measure():
    rows = clustered(40, 64)[:1]
    assert measured_candidates(Codes.encode(rows), rows) == 200
