"""The heavy parts of every request, each in threads of its own, so that the event loop stays free.

Photos are decoded by a few threads, extracted by the one that owns the network, and verified by as
many as there are pairs of cores, because verification takes two.  The collection is open for
reading only: what others commit to it is seen by the next request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from opendelg.answers import evidence_settings, query_side, response_as_dict, result_evidence
from opendelg.collection import Collection, StoredImage
from opendelg.errors import FormatError, OpenDelgError, UnavailableError
from opendelg.evidence import Evidence, Side, page_html
from opendelg.extraction import Box, Extractor, PreparedImage, parse_box
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage, read_image
from opendelg.search import SearchConfig, Searcher, SearchResponse, SearchResult
from opendelg.server.formats import kind_of_upload
from opendelg.server.metrics import Metrics
from opendelg.server.network import Network
from opendelg.server.photos import Thumbnails, read_stored
from opendelg.server.problems import Problem
from opendelg.server.queries import (
    Queries,
    Query,
    parse_stored_token,
    stored_token,
    upload_token,
)
from opendelg.server.settings import ServerSettings
from opendelg.server.uploads import AddedImage, Uploads
from opendelg.threads import available_cores
from opendelg.verification import MAX_THREADS

T = TypeVar("T")
IsGone = Callable[[], Awaitable[bool]]


class Service:
    """One collection, searched for many clients; its methods run on the event loop."""

    def __init__(
        self, collection: Collection, extractor: Extractor, settings: ServerSettings
    ) -> None:
        """Start the threads; ``close`` ends them and closes the collection."""
        cores = available_cores()
        self.collection = collection
        self.extractor = extractor
        self.settings = settings
        self.metrics = Metrics()
        self.queries = Queries(settings.query_cache_bytes)
        self.network = Network(extractor, settings.batch_size, self.metrics.batches.observe)
        self.decoders = ThreadPoolExecutor(max(2, cores // 2), "decode")
        self.verifiers = ThreadPoolExecutor(max(1, cores // MAX_THREADS), "verify")
        self.readers = ThreadPoolExecutor(max(2, cores // 2), "read")
        self.writers = ThreadPoolExecutor(1, "write")
        self.thumbnails = Thumbnails(settings.thumbnail_cache_bytes)
        self._searcher = Searcher(collection, extractor)

    def warm_up(self) -> None:
        """Load what the first search would wait for: the index, and the network's memory."""
        image = DecodedImage(np.full((480, 640, 3), 128, np.uint8), (640, 480))
        features = self.network.submit(self.extractor.prepare(image)).result()
        self._searcher.search_features(features)

    @cached_property
    def uploads(self) -> Uploads:
        """Photos that clients add and remove."""
        return Uploads(self.collection.folder)

    def close(self) -> None:
        """Finish what runs; nothing may be asked afterwards."""
        for pool in (self.decoders, self.verifiers, self.readers, self.writers):
            pool.shutdown(cancel_futures=True)
        self.network.close()
        self.collection.close()

    async def run(self, pool: ThreadPoolExecutor, function: Callable[..., T], *args: Any) -> T:
        """The result of a function that runs in a pool."""
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)

    # -- what to search with ---------------------------------------------------------------------

    async def query_of_upload(
        self, file: BinaryIO, name: str, box: Box | None, is_gone: IsGone
    ) -> Query:
        """The query for a photo that was sent."""

        def read() -> tuple[bytes, str]:
            photo = file.read()
            return photo, upload_token(photo, box)

        photo, token = await self.run(self.decoders, read)
        return await self._query_of_photo(photo, token, name, box, is_gone)

    async def query_of_image(self, image_id: int, box: Box | None, is_gone: IsGone) -> Query:
        """The query for an image of the collection: from its stored features, unless boxed."""
        token = stored_token(image_id, box)
        image = await self.run(self.readers, self.image, image_id)
        if box is None:
            features = await self.run(self.readers, self._stored_features, image)
            return Query(token, str(image.path), image_id, None, features, None)
        known = self.queries.get(token)
        if known is not None:
            return known
        prepared = await self.run(self.decoders, self._prepare, image.path, box)
        features = await self._extract(prepared, is_gone)
        query = Query(token, str(image.path), image_id, box, features, None)
        self.queries.put(query)
        return query

    async def query_of_token(self, token: str, box: Box | None, is_gone: IsGone) -> Query:
        """The query of an earlier answer, or another part of its photo."""
        stored = parse_stored_token(token)
        if stored is not None:
            try:
                own_box = None if stored[1] is None else parse_box(stored[1])
            except ValueError as error:
                raise Problem(
                    404, f"query must be the token of an answer, got {token!r}"
                ) from error
            return await self.query_of_image(stored[0], box or own_box, is_gone)
        query = self.queries.get(token)
        if query is None or query.photo is None:
            raise Problem(404, f"query must be one of the last, got {token!r}; search again")
        if box is None or box == query.box:
            return query
        token = upload_token(query.photo, box)
        return await self._query_of_photo(query.photo, token, query.path, box, is_gone)

    async def _query_of_photo(
        self, photo: bytes, token: str, name: str, box: Box | None, is_gone: IsGone
    ) -> Query:
        known = self.queries.get(token)
        if known is not None:
            known = replace(known, path=name)
            self.queries.put(known)
            return known
        prepared = await self.run(self.decoders, self._prepare, photo, box)
        features = await self._extract(prepared, is_gone)
        query = Query(token, name, None, box, features, photo)
        self.queries.put(query)
        self.metrics.cached.set(self.queries.num_bytes)
        return query

    def _prepare(self, source: Path | bytes, box: Box | None) -> PreparedImage:
        draft = self.extractor.config.draft_size if box is None else None
        return self.extractor.prepare(self._read(source, draft), box)

    def _read(self, source: Path | bytes, draft_size: int | None = None) -> DecodedImage:
        if isinstance(source, bytes):
            kind_of_upload(source)
            return read_image(source, self.settings.image_limits, draft_size)
        return read_stored(source, draft_size)

    async def _extract(self, prepared: PreparedImage, is_gone: IsGone) -> ImageFeatures:
        if await is_gone():
            raise Problem(400, "client must wait for its answer, got a closed connection")
        return await asyncio.wrap_future(self.network.submit(prepared))

    def _stored_features(self, image: StoredImage) -> ImageFeatures:
        with self.collection.snapshot():
            descriptor = self.collection.global_descriptor(image.id)
            (local,) = self.collection.local_features([image.id])
        return ImageFeatures(image.size, descriptor, local)

    def image(self, image_id: int) -> StoredImage:
        """An image of the collection; a Problem with status 404 if it is not there."""
        try:
            return self.collection.image(image_id)
        except (FormatError, UnavailableError):
            raise
        except OpenDelgError as error:
            raise Problem(404, str(error)) from error

    # -- answers ---------------------------------------------------------------------------------

    async def search(
        self, query: Query, config: SearchConfig, started: float, deadline: float | None
    ) -> dict[str, Any]:
        """The answer to a query, in the words of the command line."""
        extraction_seconds = time.perf_counter() - started

        def search() -> dict[str, Any]:
            response = self._search(query, config, extraction_seconds, deadline)
            self.metrics.observe_search(response.seconds)
            answer = response_as_dict(response, query.path, query.image_id, query.box)
            answer["query"]["token"] = query.token
            return {**answer, "complete": response.is_complete}

        return await self.run(self.verifiers, search)

    async def search_page(self, query: Query, config: SearchConfig) -> str:
        """The page of evidence over all results."""

        def page() -> str:
            response = self._search(query, config)
            return self._page(query, response.results, config, response.seconds)

        return await self.run(self.verifiers, page)

    async def compare(self, query: Query, image_id: int) -> SearchResult:
        """A query and one image of the collection."""
        image = await self.run(self.readers, self.image, image_id)
        return await self.run(self.readers, self._searcher.compare_with, query.features, image.id)

    async def pair_page(self, query: Query, result: SearchResult) -> str:
        """The page of evidence of one pair."""
        return await self.run(
            self.readers, self._page, query, [result], SearchConfig(top=1, rerank=1), None
        )

    def _search(
        self,
        query: Query,
        config: SearchConfig,
        extraction_seconds: float = 0.0,
        deadline: float | None = None,
    ) -> SearchResponse:
        searcher = Searcher(self.collection, self.extractor, config)
        return searcher.search_features(
            query.features, extraction_seconds, query.image_id, deadline
        )

    def _page(
        self,
        query: Query,
        results: Any,
        config: SearchConfig,
        seconds: Any,
    ) -> str:
        evidences = [self.evidence(query, result) for result in results]
        searcher = Searcher(self.collection, self.extractor, config)
        settings = evidence_settings(searcher, self.collection.name)
        side = self.side(query)
        return page_html(side, query.box, evidences, seconds=seconds, settings=settings)

    def evidence(self, query: Query, result: SearchResult) -> Evidence:
        """What is drawn of one result."""
        return result_evidence(result, query.features, self.side(query))

    def side(self, query: Query) -> Side:
        """The query's photo."""
        return replace(query_side(Path(query.path), query.features), data=query.photo)

    def photo(self, query: Query, draft_size: int) -> DecodedImage:
        """The query's photo; a Problem with status 404 if it is no longer on disk."""
        source = Path(query.path) if query.photo is None else query.photo
        return self._read(source, draft_size)

    # -- changes and state -----------------------------------------------------------------------

    async def add(self, file: BinaryIO, name: str, is_gone: IsGone) -> AddedImage:
        """Add a photo; it and its features are on the disk afterwards."""
        photo = await self.run(self.decoders, file.read)
        known = await self.run(self.decoders, self.uploads.find, photo, self.collection)
        if known is not None:
            return known
        prepared = await self.run(self.decoders, self._prepare, photo, None)
        features = await self._extract(prepared, is_gone)
        return await self.run(self.writers, self.uploads.add, photo, name, features)

    async def remove(self, image_id: int) -> None:
        """Remove an image, and its photo if that was sent here."""
        await self.run(self.writers, self.uploads.remove, image_id)

    def can_read(self) -> bool:
        """Whether the collection can be read."""
        try:
            return len(self.collection) >= 0
        except OpenDelgError:
            return False

    def measured(self) -> bytes:
        """Counters in Prometheus' format."""
        self.metrics.images.set(len(self.collection))
        return self.metrics.text()
