"""What the service answers, for its OpenAPI document and for clients that check answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Size = Annotated[list[int], Field(min_length=2, max_length=2, description="Width, height in px.")]
BoxNumbers = Annotated[list[float], Field(min_length=4, max_length=4)]
Row = Annotated[list[float], Field(min_length=3, max_length=3)]
Transform = Annotated[
    list[Row], Field(min_length=2, max_length=2, description="Affine, query px to database px.")
]
Probability = Annotated[float, Field(ge=0, le=1)]


class Answer(BaseModel):
    """An object with these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """What went wrong."""

    status: int
    message: str


class ErrorAnswer(Answer):
    """Every failure."""

    error: ErrorDetail


class Region(Answer):
    """Polygons around the inliers, px of the upright originals."""

    query: list[Point]
    database: list[Point]


class QueryAnswer(Answer):
    """What was searched with."""

    token: str
    path: str
    id: int | None
    size: Size
    box: BoxNumbers | None


class SearchedQuery(QueryAnswer):
    """What was searched with, and what was found in it."""

    num_keypoints: int
    expanded_with: list[int] | None


class Result(Answer):
    """One result."""

    rank: int
    id: int
    path: str
    size: Size
    similarity: float
    expanded_similarity: float | None
    num_matches: int
    num_inliers: int
    same: Probability | None
    database_from_query: Transform | None
    region: Region


class SearchAnswer(Answer):
    """Results, best first; in order of similarity if not complete."""

    query: SearchedQuery
    results: list[Result]
    seconds: dict[str, float]
    complete: bool
    confident: Probability


class ImageAnswer(Answer):
    """An image of the collection."""

    id: int
    path: str
    size: Size
    num_local: int


class ImagesAnswer(Answer):
    """Images in order of id."""

    images: list[ImageAnswer]
    next: int | None


class ComparedImage(Answer):
    """The image that a query was compared with."""

    id: int
    path: str
    size: Size


class Match(Answer):
    """Two points that look alike, px of the upright originals."""

    query: Point
    database: Point
    inlier: bool


class EvidenceAnswer(Answer):
    """Why an image was found."""

    query: QueryAnswer
    image: ComparedImage
    similarity: float
    num_matches: int
    num_inliers: int
    same: Probability | None
    confident: Probability
    matches: list[Match]
    database_from_query: Transform | None
    region: Region


class LimitsAnswer(Answer):
    """What a request may ask for."""

    max_bytes: int
    max_pixels: int
    max_top: int
    max_rerank: int


class CollectionAnswer(Answer):
    """The collection that is served."""

    name: str
    num_images: int
    num_failures: int
    revision: int
    model: str
    profile: str
    is_writable: bool
    confident: Probability
    limits: LimitsAnswer
    version: str


class StatusAnswer(Answer):
    """The service is well."""

    status: str
