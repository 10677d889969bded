"""The app: routes, the gate before them, and one shape of failure."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

import opendelg
from opendelg.collection import Collection
from opendelg.extraction import Extractor
from opendelg.server import routes_images, routes_search, routes_status
from opendelg.server.gate import Access, HeadLikeGet, Limits, SecurityHeaders
from opendelg.server.metrics import Measured
from opendelg.server.page_files import page_router
from opendelg.server.problems import handle_problems
from opendelg.server.service import Service
from opendelg.server.settings import ServerSettings

# A search has 7 fields and a photo.
_FORM_LIMITS: Any = {"max_files": 1, "max_fields": 8, "max_part_size": 1024}
# Nothing leaves this machine, whatever its environment says.
_NO_TELEMETRY: Any = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)


def create_app(
    collection: Collection, extractor: Extractor, settings: ServerSettings | None = None
) -> ASGIApp:
    """The service as an ASGI app.

    Args:
        collection: Open for reading; the app closes it when it is shut down.
        extractor: What made the collection; used by nobody else from now on.
        settings: Who may use it, and what a request may cost.
    """
    settings = settings or ServerSettings()
    service = Service(collection, extractor, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.run(service.verifiers, service.warm_up)
        yield
        service.close()

    app = FastAPI(
        title="opendelg",
        description="Find every photo that shows the same place, building or object, and see why.",
        version=opendelg.__version__,
        lifespan=lifespan,
        docs_url=None,  # they load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        form_limits=_FORM_LIMITS,
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    for router in (routes_search.router, routes_images.router, routes_status.router, page_router()):
        app.include_router(router)
    handle_problems(app)
    _document(app, settings)
    limited = Limits(app, settings)
    measured = Measured(Access(limited, settings), service.metrics)
    return HeadLikeGet(SecurityHeaders(measured))


def _document(app: FastAPI, settings: ServerSettings) -> None:
    """Make the OpenAPI document say what is true: invalid parameters give 400, not 422."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            if settings.token is not None:
                document["components"]["securitySchemes"] = {
                    "token": {"type": "http", "scheme": "bearer"}
                }
                document["security"] = [{"token": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
