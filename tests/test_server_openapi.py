"""What the service answers is what its OpenAPI document says, whatever it is asked."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from opendelg.client import Client
from tests.service_samples import serving

# `make fuzz` asks for more.
EXAMPLES = int(os.environ.get("OPENDELG_FUZZ_EXAMPLES", "12"))


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    with serving(served / "c", max_bytes=200_000) as url:
        yield url


@pytest.fixture
def document(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_of_the_document(case: Any) -> None:
    response = case.call_and_validate(timeout=30)
    assert response.status_code < 500


def test_the_document_names_every_route_and_failure(url: str) -> None:
    with Client(url) as client:
        document = json.loads(client._request("GET", "/openapi.json"))
    assert set(document["paths"]) == {
        "/v1/search",
        "/v1/queries/{query}/photo",
        "/v1/evidence/{query}",
        "/v1/evidence/{query}/{id}",
        "/v1/collection",
        "/v1/images",
        "/v1/images/{id}",
        "/v1/images/{id}/thumbnail",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    failures = document["paths"]["/v1/search"]["post"]["responses"]
    assert set(failures) == {"200", *map(str, (400, 401, 403, 404, 408, 413, 415, 429, 500, 503))}
