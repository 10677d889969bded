"""Search, and why something was found."""

import io
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import Response

from opendelg.answers import result_as_dict
from opendelg.evidence import Evidence, draw_evidence
from opendelg.same import CONFIDENT
from opendelg.search import SearchConfig, SearchResult
from opendelg.server import models
from opendelg.server.formats import jpeg
from opendelg.server.problems import JsonResponse, Problem
from opendelg.server.queries import Query as SearchQuery
from opendelg.server.routes import (
    FAILURES,
    MAX_ID,
    MAX_RERANK,
    MAX_SIDE,
    MAX_TOP,
    MIN_SIDE,
    ImageId,
    QueryToken,
    ServiceHere,
    content,
    read_box,
)
from opendelg.server.service import Service

router = APIRouter(prefix="/v1", responses=FAILURES, redirect_slashes=False)

# The page of evidence has its style inside and no scripts; `write_page` says the same in the page.
_EVIDENCE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
Top = Annotated[int, Form(ge=1, le=MAX_TOP, description="Results.")]
Rerank = Annotated[
    int, Form(ge=0, le=MAX_RERANK, description="Candidates that are verified; 0: none.")
]


@router.post("/search", response_model=models.SearchAnswer)
async def search(
    service: ServiceHere,
    request: Request,
    file: Annotated[UploadFile | None, File(description="The photo.")] = None,
    id: Annotated[
        int | None, Form(ge=1, le=MAX_ID, description="Or an image of the collection.")
    ] = None,
    query: Annotated[
        str | None, Form(max_length=200, description="Or the token of an earlier answer.")
    ] = None,
    box: Annotated[
        str | None, Form(max_length=200, description="Part of the photo: x1,y1,x2,y2 in its px.")
    ] = None,
    top: Top = 20,
    rerank: Rerank = 100,
    seconds: Annotated[
        float | None,
        Form(ge=0.05, le=60, description="Time budget; then results come by similarity."),
    ] = None,
) -> Response:
    """Find the photos that show the same thing as a photo, best first."""
    started = time.perf_counter()
    deadline = None if seconds is None else started + seconds
    found = await _query(service, request, file, id, query, box)
    config = SearchConfig(top, rerank)
    if await request.is_disconnected():
        raise Problem(400, "client must wait for its answer, got a closed connection")
    answer = await service.search(found, config, started, deadline)
    return JsonResponse({**answer, "confident": CONFIDENT})


async def _query(
    service: Service,
    request: Request,
    file: UploadFile | None,
    image_id: int | None,
    token: str | None,
    box_text: str | None,
) -> SearchQuery:
    box, is_gone = read_box(box_text), request.is_disconnected
    fields = {"file": file, "id": image_id, "query": token}
    given = [name for name, value in fields.items() if value is not None]
    if len(given) != 1:
        raise Problem(
            400, f"search must have one of file, id and query, got {' and '.join(given) or 'none'}"
        )
    if file is not None:
        return await service.query_of_upload(file.file, photo_name(file), box, is_gone)
    if image_id is not None:
        return await service.query_of_image(image_id, box, is_gone)
    assert token is not None
    return await service.query_of_token(token, box, is_gone)


def photo_name(file: UploadFile) -> str:
    """The name that a photo was sent with, without folders."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return name[:200] or "photo"


@router.get(
    "/queries/{query}/photo",
    responses=content("image/jpeg", "An upright JPEG."),
    response_class=Response,
)
async def query_photo(
    service: ServiceHere,
    request: Request,
    query: QueryToken,
    size: Annotated[int, Query(ge=MIN_SIDE, le=MAX_SIDE, description="Longer side, px.")] = 1280,
) -> Response:
    """The whole photo of a query."""
    found = await service.query_of_token(query, None, request.is_disconnected)

    def make() -> bytes:
        return jpeg(service.photo(found, draft_size=size).pixels, size)

    return Response(await service.run(service.readers, make), media_type="image/jpeg")


@router.get("/evidence/{query}", responses=content("text/html", "A page."), response_class=Response)
async def search_evidence(
    service: ServiceHere,
    request: Request,
    query: QueryToken,
    top: Annotated[int, Query(ge=1, le=100)] = 20,
    rerank: Annotated[int, Query(ge=0, le=MAX_RERANK)] = 100,
) -> Response:
    """The page that `delg search --html` writes: all results with their evidence."""
    found = await service.query_of_token(query, None, request.is_disconnected)
    return _page(await service.search_page(found, SearchConfig(top, rerank)))


@router.get(
    "/evidence/{query}/{id}",
    responses={
        200: {
            "description": "The evidence of one pair.",
            "content": {
                "text/html": {"schema": {"type": "string"}},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
    response_model=models.EvidenceAnswer,
)
async def evidence(
    service: ServiceHere,
    request: Request,
    query: QueryToken,
    id: ImageId,
    format: Annotated[Literal["json", "html", "png"], Query()] = "json",
) -> Response:
    """Why an image was found, or was not: what matches in both photos."""
    found = await service.query_of_token(query, None, request.is_disconnected)
    result = await service.compare(found, id)
    if format == "html":
        return _page(await service.pair_page(found, result))
    pair = service.evidence(found, result)
    if format == "png":
        png = await service.run(service.readers, _png, pair, found)
        return Response(png, media_type="image/png")
    return JsonResponse(_evidence_as_dict(found, result, pair))


def _evidence_as_dict(query: SearchQuery, result: SearchResult, pair: Evidence) -> dict[str, Any]:
    found = result_as_dict(result)
    points = zip(
        pair.query_points.tolist(),
        pair.database_points.tolist(),
        pair.inliers.tolist(),
        strict=True,
    )
    return {
        "query": {
            "token": query.token,
            "path": query.path,
            "id": query.image_id,
            "size": list(query.features.size),
            "box": None if query.box is None else list(query.box),
        },
        "image": {name: found[name] for name in ("id", "path", "size")},
        **{name: found[name] for name in ("similarity", "num_matches", "num_inliers", "same")},
        "confident": CONFIDENT,
        "matches": [
            {"query": of_query, "database": of_image, "inlier": is_inlier}
            for of_query, of_image, is_inlier in points
        ],
        "database_from_query": found["database_from_query"],
        "region": found["region"],
    }


def _png(pair: Evidence, query: SearchQuery) -> bytes:
    buffer = io.BytesIO()
    draw_evidence(pair, query_box=query.box).save(buffer, "PNG")
    return buffer.getvalue()


def _page(html: str) -> Response:
    headers = {"Content-Security-Policy": _EVIDENCE_POLICY}
    return Response(html.encode(), media_type="text/html; charset=utf-8", headers=headers)
