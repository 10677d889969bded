"""The collection: its photos, and where that is allowed, adding and removing them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Query, Request, UploadFile
from starlette.responses import FileResponse, Response

import opendelg
from opendelg.collection import StoredImage
from opendelg.extraction import profile_name
from opendelg.same import CONFIDENT
from opendelg.server import models
from opendelg.server.photos import PhotoFile, file_bytes, photo_file, whole_jpeg
from opendelg.server.problems import JsonResponse, Problem
from opendelg.server.routes import (
    FAILURES,
    MAX_ID,
    MAX_RERANK,
    MAX_SIDE,
    MAX_TOP,
    MIN_SIDE,
    ImageId,
    ServiceHere,
    content,
)
from opendelg.server.routes_search import photo_name
from opendelg.server.service import Service

router = APIRouter(prefix="/v1", responses=FAILURES, redirect_slashes=False)
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` says."}}
# Ids are never used again, but the photo of an id may change: ask each time, which costs little.
_CACHE = "private, no-cache"


@router.get("/collection", response_model=models.CollectionAnswer)
async def collection(service: ServiceHere) -> Response:
    """What is searched, and what a request may ask for."""
    info = await service.run(service.readers, service.collection.info)
    settings = service.settings
    return JsonResponse(
        {
            "name": service.collection.name,
            "num_images": info.num_images,
            "num_failures": info.num_failures,
            "revision": info.revision,
            "model": service.extractor.weights.name,
            "profile": profile_name(service.extractor.config),
            "is_writable": settings.is_writable,
            "confident": CONFIDENT,
            "limits": {
                "max_bytes": settings.max_bytes,
                "max_pixels": settings.max_pixels,
                "max_top": MAX_TOP,
                "max_rerank": MAX_RERANK,
            },
            "version": opendelg.__version__,
        }
    )


@router.get("/images", response_model=models.ImagesAnswer)
async def images(
    service: ServiceHere,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="The last id seen.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Images in order of id, a page at a time."""
    found = await service.run(service.readers, service.collection.images_after, after, limit + 1)
    following = found[limit - 1].id if len(found) > limit else None
    return JsonResponse({"images": [_as_dict(i) for i in found[:limit]], "next": following})


@router.get(
    "/images/{id}",
    responses={
        **content("image/*", "The file as it is, or an upright JPEG."),
        206: {"description": "The part that `Range` asks for; of photos in tars all is sent."},
        416: {"description": "The file does not have the part that `Range` asks for."},
        **_UNCHANGED,
    },
    response_class=Response,
)
async def image(
    service: ServiceHere,
    request: Request,
    id: ImageId,
    format: Annotated[
        Literal["original", "jpeg"], Query(description="jpeg: upright, for every browser.")
    ] = "original",
) -> Response:
    """The photo of an image."""
    photo = await service.run(service.readers, _photo, service, id)
    headers = _headers(photo, format)
    if _is_unchanged(request, headers):
        return Response(status_code=304, headers=headers)
    if format == "jpeg":
        made = await service.run(service.readers, whole_jpeg, photo.path)
        return Response(made, media_type="image/jpeg", headers=headers)
    if photo.is_in_tar:
        whole = await service.run(service.readers, file_bytes, photo.path)
        return Response(whole, media_type=photo.content_type, headers=headers)
    return FileResponse(photo.path, media_type=photo.content_type, headers=headers)


@router.get(
    "/images/{id}/thumbnail",
    responses={**content("image/jpeg", "An upright JPEG."), **_UNCHANGED},
    response_class=Response,
)
async def thumbnail(
    service: ServiceHere,
    request: Request,
    id: ImageId,
    size: Annotated[int, Query(ge=MIN_SIDE, le=MAX_SIDE, description="Longer side, px.")] = 320,
) -> Response:
    """A small upright JPEG of an image."""
    photo = await service.run(service.readers, _photo, service, id)
    headers = _headers(photo, str(size))
    if _is_unchanged(request, headers):
        return Response(status_code=304, headers=headers)
    made = await service.run(service.readers, service.thumbnails.get, photo, size)
    return Response(made, media_type="image/jpeg", headers=headers)


@router.post(
    "/images",
    status_code=201,
    response_model=models.ImageAnswer,
    responses={200: {"model": models.ImageAnswer, "description": "It was there already."}},
)
async def add_image(
    service: ServiceHere,
    request: Request,
    file: Annotated[UploadFile, File(description="The photo.")],
) -> Response:
    """Add a photo; it is on the disk when this answers, with status 200 if it was before."""
    _require_writable(service)
    added = await service.add(file.file, photo_name(file), request.is_disconnected)
    return JsonResponse(_as_dict(added.image), 201 if added.is_new else 200)


@router.delete("/images/{id}", status_code=204)
async def remove_image(service: ServiceHere, id: ImageId) -> Response:
    """Remove an image; the photo is deleted if it was sent here, and stays if it was indexed."""
    _require_writable(service)
    await service.remove(id)
    return Response(status_code=204)


def _require_writable(service: Service) -> None:
    if not service.settings.is_writable:
        raise Problem(403, "service must be started with --writable to change the collection")


def _photo(service: Service, image_id: int) -> PhotoFile:
    return photo_file(service.image(image_id).path)


def _headers(photo: PhotoFile, variant: str) -> dict[str, str]:
    return {"ETag": f'"{photo.etag}-{variant}"', "Cache-Control": _CACHE}


def _is_unchanged(request: Request, headers: dict[str, str]) -> bool:
    known = request.headers.get("if-none-match", "")
    return headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(","))


def _as_dict(image: StoredImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "path": str(image.path),
        "size": list(image.size),
        "num_local": image.num_local,
    }
