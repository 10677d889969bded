import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendelg.extraction import ExtractionConfig, Extractor, PreparedImage
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.runtime import Runtime
from opendelg.server.network import Network
from opendelg.server.photos import Thumbnails, photo_file
from opendelg.server.queries import Queries, Query, parse_stored_token, stored_token, upload_token
from opendelg.weights import Weights
from tests.conftest import draw_image


class Held(Extractor):
    """Waits before each batch until it is let go on, and keeps what it was given."""

    def __init__(self, weights: Weights, runtime: Runtime) -> None:
        super().__init__(weights, ExtractionConfig(max_size=128, scales=(1.0,)), runtime)
        self.gate = threading.Event()
        self.batches: list[list[tuple[int, ...]]] = []

    def extract_prepared(self, images: Any, want_local: bool = True) -> list[ImageFeatures]:
        assert self.gate.wait(10)
        self.batches.append([image.pixels.shape[:2] for image in images])
        return super().extract_prepared(images, want_local)


@pytest.fixture
def held(tiny_weights: Weights, tiny_runtime: Runtime) -> Held:
    return Held(tiny_weights, tiny_runtime)


def prepared(size: tuple[int, int], seed: int = 0) -> PreparedImage:
    return PreparedImage(draw_image(size, seed).pixels, size, (0, 0), (1.0, 1.0))


WIDE, TALL = (96, 64), (64, 96)


def fill(network: Network, held: Held, sizes: list[tuple[int, int]]) -> list[Any]:
    """Queue images while the network is busy with a first one, then let it go on."""
    first = network.submit(prepared((70, 70)))
    while first.running() is False:
        threading.Event().wait(0.001)
    futures = [network.submit(prepared(size, seed)) for seed, size in enumerate(sizes)]
    held.gate.set()
    return futures


def test_waiting_images_of_one_size_go_together(held: Held) -> None:
    network = Network(held, batch_size=4)
    futures = fill(network, held, [WIDE, TALL, WIDE, WIDE, TALL])
    network.close()
    assert held.batches == [[(70, 70)], [(64, 96)] * 3, [(96, 64)] * 2]
    assert all(future.done() for future in futures)


def test_a_batch_has_a_limit_and_the_first_come_first(held: Held) -> None:
    network = Network(held, batch_size=2)
    fill(network, held, [TALL, WIDE, WIDE, WIDE, TALL])
    network.close()
    assert held.batches[1:] == [[(96, 64)] * 2, [(64, 96)] * 2, [(64, 96)]]


def test_each_image_gets_its_own_features(held: Held) -> None:
    network = Network(held, batch_size=4)
    futures = fill(network, held, [WIDE, WIDE, TALL])
    network.close()
    for seed, (future, size) in enumerate(zip(futures, [WIDE, WIDE, TALL], strict=True)):
        (alone,) = Extractor.extract_prepared(held, [prepared(size, seed)])
        np.testing.assert_allclose(
            future.result().global_descriptor, alone.global_descriptor, atol=1e-5
        )


def test_images_that_nobody_waits_for_cost_nothing(held: Held) -> None:
    network = Network(held, batch_size=4)
    first = network.submit(prepared((70, 70)))
    while first.running() is False:
        threading.Event().wait(0.001)
    unwanted = network.submit(prepared(WIDE))
    wanted = network.submit(prepared(TALL))
    assert unwanted.cancel()
    held.gate.set()
    assert wanted.result(10).size == TALL
    network.close()
    assert held.batches == [[(70, 70)], [(96, 64)]]


def test_a_failure_reaches_who_waits_and_the_network_goes_on(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(held, batch_size=1)
    broken = PreparedImage(np.zeros((2, 2), np.uint8), (2, 2), (0, 0), (1.0, 1.0))
    held.gate.set()
    with pytest.raises(ValueError, match="images"):
        network.submit(broken).result(10)
    assert network.submit(prepared(WIDE)).result(10).size == WIDE
    assert network.is_alive
    network.close()
    assert not network.is_alive


def query(token: str, num_bytes: int) -> Query:
    features = ImageFeatures((4, 4), np.zeros(0, np.float32), LocalFeatures.empty(8))
    return Query(token, "a.jpg", None, None, features, bytes(num_bytes - 1000))


def test_the_longest_unused_query_is_forgotten_first() -> None:
    queries = Queries(max_bytes=10_000)
    for token in "abc":
        queries.put(query(token, 3_000))
    assert queries.get("a") is not None
    queries.put(query("d", 3_000))
    assert [queries.get(token) is not None for token in "abcd"] == [True, False, True, True]
    assert queries.num_bytes == 9_000


def test_a_query_that_is_put_again_counts_once() -> None:
    queries = Queries(max_bytes=10_000)
    for _ in range(5):
        queries.put(query("a", 4_000))
    assert (len(queries), queries.num_bytes) == (1, 4_000)


def test_the_last_query_stays_however_large_it_is() -> None:
    queries = Queries(max_bytes=10_000)
    queries.put(query("a", 3_000))
    queries.put(query("b", 50_000))
    assert (queries.get("a"), queries.get("b") is not None) == (None, True)


@pytest.mark.parametrize("box", [None, (0.1, 2.0, 3.25, 1e10)])
def test_tokens_of_stored_images_hold_id_and_box(
    box: tuple[float, float, float, float] | None,
) -> None:
    found = parse_stored_token(stored_token(17, box))
    assert found is not None
    numbers = None if found[1] is None else tuple(map(float, found[1].split(",")))
    assert (found[0], numbers) == (17, box)


def test_tokens_of_photos_differ_by_content_and_box() -> None:
    tokens = [upload_token(b"a", None), upload_token(b"b", None), upload_token(b"a", (0, 0, 1, 1))]
    assert len(set(tokens)) == 3
    assert upload_token(b"a", None) == tokens[0]
    assert parse_stored_token(tokens[0]) is None


def test_thumbnails_are_kept_within_their_memory(drawn_files: list[Path]) -> None:
    one = len(Thumbnails(10**6).get(photo_file(drawn_files[0]), 32))
    thumbnails = Thumbnails(2 * one)
    for path in drawn_files:
        thumbnails.get(photo_file(path), 32)
    assert 0 < thumbnails.num_bytes <= 2 * one


def test_a_photo_that_changed_gets_another_thumbnail(tmp_path: Path) -> None:
    from PIL import Image

    path, thumbnails = tmp_path / "a.png", Thumbnails(10**6)
    made = []
    for seed in (1, 2):
        Image.fromarray(draw_image((96, 64), seed).pixels).save(path)
        made.append(thumbnails.get(photo_file(path), 64))
    assert made[0] != made[1]


def test_a_closed_network_takes_no_more(held: Held) -> None:
    network = Network(held, batch_size=1)
    network.close()
    with pytest.raises(RuntimeError, match="closed"):
        network.submit(prepared(WIDE))
