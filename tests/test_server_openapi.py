"""What the service answers is what its OpenAPI document says, whatever it is asked."""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from opendelg.client import Client, ServiceError
from tests.service_samples import serving

# `make fuzz` asks for more.
EXAMPLES = int(os.environ.get("OPENDELG_FUZZ_EXAMPLES", "12"))
SOME = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    with serving(served / "c", max_bytes=200_000) as url:
        yield url


OPERATIONS = [
    ("/v1/search", "POST"),
    ("/v1/queries/{query}/photo", "GET"),
    ("/v1/evidence/{query}", "GET"),
    ("/v1/evidence/{query}/{id}", "GET"),
    ("/v1/collection", "GET"),
    ("/v1/images", "GET"),
    ("/v1/images", "POST"),
    ("/v1/images/{id}", "GET"),
    ("/v1/images/{id}", "DELETE"),
    ("/v1/images/{id}/thumbnail", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]


WITHOUT_PARAMETERS = {"/v1/collection", "/healthz", "/readyz", "/metrics"}
CASES = [
    pytest.param(path, method, mode, id=f"{method} {path} {mode.value}")
    for path, method in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path not in WITHOUT_PARAMETERS
]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_answers_are_those_of_the_document(
    url: str, path: str, method: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]

    # That a file must be a photo, and which fields go together, no schema says.
    excluded = [positive_data_acceptance] if method == "POST" else []

    @SOME
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        response = case.call_and_validate(timeout=30, excluded_checks=excluded)
        assert response.status_code < 500

    check()


ANY_NUMBER = st.floats(width=32) | st.integers(-10, 300).map(float) | st.floats()


@SOME
@given(
    image_id=st.integers(1, 10),
    box=st.none() | st.tuples(ANY_NUMBER, ANY_NUMBER, ANY_NUMBER, ANY_NUMBER),
    top=st.integers(1, 1000),
    rerank=st.integers(0, 1000),
    seconds=st.none() | st.floats(0.05, 60),
)
def test_no_search_by_id_fails(url: str, image_id: int, box: Any, **values: Any) -> None:
    with Client(url) as client:
        status = status_of(lambda: client.search(id=image_id, box=box, **values))
    assert status in (200, 400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "AVIF"])
def test_no_damaged_photo_fails(url: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((96, 80), 60).convert("RGB").save(buffer, kind)
    intact = buffer.getvalue()
    places = st.integers(0, min(400, len(intact) - 1))

    @SOME
    @given(
        changes=st.lists(st.tuples(places, st.integers(0, 255)), max_size=4),
        length=st.integers(0, len(intact)) | st.just(len(intact)),
    )
    def check(changes: list[tuple[int, int]], length: int) -> None:
        damaged = bytearray(intact)
        for place, value in changes:
            damaged[place] = value
        with Client(url) as client:
            status = status_of(lambda: client.search(bytes(damaged[:length]), rerank=0))
        assert status in (200, 400, 413, 415)

    check()


def status_of(ask: Callable[[], object]) -> int:
    try:
        ask()
    except ServiceError as error:
        return error.status
    return 200


def test_the_document_names_every_route_and_failure(url: str) -> None:
    with Client(url) as client:
        document = json.loads(client._request("GET", "/openapi.json"))
    assert {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    } == set(OPERATIONS)
    failures = document["paths"]["/v1/search"]["post"]["responses"]
    assert set(failures) == {"200", *map(str, (400, 401, 403, 404, 408, 413, 415, 429, 500, 503))}
