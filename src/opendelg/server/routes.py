"""What all routes share: the service, and the failures that they document."""

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from opendelg.extraction import Box, parse_box
from opendelg.server.models import ErrorAnswer
from opendelg.server.problems import Problem
from opendelg.server.queries import TOKEN_PATTERN
from opendelg.server.service import Service

MAX_ID = 2**63 - 1
MAX_TOP = 1000
MAX_RERANK = 1000
MIN_SIDE = 32  # px of a small photo
MAX_SIDE = 2048
_REASONS = {
    400: "A parameter or photo is wrong.",
    401: "The token is missing or wrong.",
    403: "Asked by another site's page, or to write where that is off.",
    404: "There is no such image, photo or query.",
    408: "The body came too slowly.",
    413: "The photo has too many bytes or pixels.",
    415: "The file is not a photo in a format that is read.",
    429: "This client has too many requests running.",
    500: "Internal error.",
    503: "The service is full, or the work took too long: try again later.",
}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": reason} for status, reason in _REASONS.items()
}


async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


ServiceHere = Annotated[Service, Depends(_service)]
ImageId = Annotated[int, Path(ge=1, le=MAX_ID, description="Id of an image of the collection.")]
QueryToken = Annotated[
    str,
    Path(pattern=TOKEN_PATTERN, description="`query.token` of an answer, or id17 for image 17."),
]


def read_box(text: str | None) -> Box | None:
    """The box in a form field; a Problem if it is none."""
    if text is None:
        return None
    try:
        return parse_box(text)
    except ValueError as error:
        raise Problem(400, str(error)) from error


def content(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The documentation of an answer that is a file."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}
