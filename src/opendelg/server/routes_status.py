"""Whether the service is well, and how it does: for whoever runs it."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from opendelg.server import models
from opendelg.server.metrics import CONTENT_TYPE
from opendelg.server.problems import JsonResponse, Problem
from opendelg.server.routes import FAILURES, ServiceHere

_UNWELL: dict[int | str, dict[str, Any]] = {503: FAILURES[503]}
router = APIRouter(redirect_slashes=False)


@router.get("/healthz", response_model=models.StatusAnswer, responses=_UNWELL)
async def healthz(service: ServiceHere) -> Response:
    """Whether the process works: restart it if this fails."""
    if not service.network.is_alive:
        raise Problem(503, "network must be running, got none")
    return JsonResponse({"status": "ok"})


@router.get("/readyz", response_model=models.StatusAnswer, responses=_UNWELL)
async def readyz(service: ServiceHere) -> Response:
    """Whether requests can be answered now: the model is loaded, the collection can be read."""
    if not (service.network.is_alive and await service.run(service.readers, service.can_read)):
        raise Problem(503, "collection must be readable, got one that is not")
    return JsonResponse({"status": "ok"})


@router.get(
    "/metrics",
    responses={
        200: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        401: FAILURES[401],
    },
    response_class=Response,
)
async def metrics(service: ServiceHere) -> Response:
    """Counters for Prometheus."""
    text = await service.run(service.readers, service.measured)
    return Response(text, headers={"Content-Type": CONTENT_TYPE})
