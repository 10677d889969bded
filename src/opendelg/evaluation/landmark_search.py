"""Google Landmarks v2 searched: neighbours by global descriptor, then verified.

Global descriptors of all images come first, in shards beside the catalogue of a collection.
Local features are extracted of the images that a query is compared with only, and kept in the
collection.  Neighbours and inliers are kept step by step too: whatever stops it, it goes on there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from opendelg import __version__
from opendelg.collection import Collection
from opendelg.evaluation.kept_local import KeptLocal
from opendelg.evaluation.landmark_data import MAX_EXAMPLES, LandmarkBenchmark, Split
from opendelg.evaluation.provenance import hash_of_names
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.shards import Shards, fill_shards
from opendelg.evaluation.steps import Steps
from opendelg.evaluation.top_k import BLOCK_ROWS, most_similar
from opendelg.evaluation.verified import VerifiedQuery, verify_head
from opendelg.extraction import Extractor
from opendelg.search import SearchConfig
from opendelg.settings import settings_as_dict

SEARCHED_QUERIES = 8192  # per step: one pass over the database
VERIFIED_PAIRS = 6400  # per step, about: half a minute
LOCAL_IMAGES = 4096  # whose local features are asked for at a time

# Opens a progress display of a title and a total; yields what is called once per thing done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[object], None]]]


@dataclass(frozen=True)
class Workload:
    """How images are extracted."""

    decode_threads: int = 2
    batch_size: int = 1


@dataclass(frozen=True)
class Neighbours:
    """What was found for each query; a query that cannot be read has nothing."""

    rankings: tuple[Ranking, ...]  # Q, by global descriptor
    inliers: tuple[np.ndarray, ...]  # Q arrays (R,) int32 of the first R of each ranking
    notes: tuple[str, ...] = field(default=())  # images that cannot be read


class LandmarkSearch:
    """One benchmark, the collection that keeps its features, and what extracts them."""

    def __init__(
        self,
        benchmark: LandmarkBenchmark,
        collection: Collection,
        extractor: Extractor,
        progress: Progress,
        workload: Workload = Workload(),
    ) -> None:
        """Open the shards beside the collection.

        Raises:
            FormatError: If another recipe made them, or they are damaged.
        """
        self._benchmark = benchmark
        self._collection = collection
        self._extractor = extractor
        self._progress = progress
        self._workload = workload
        folder = collection.folder / "shards"
        self._database = _Described(
            benchmark.database, Shards.open(folder / benchmark.database.name, extractor)
        )
        self._queries = _Described(
            benchmark.queries, Shards.open(folder / benchmark.queries.name, extractor)
        )

    def neighbours(self, count: int, config: SearchConfig) -> Neighbours:
        """The ``count`` most similar images of each query, the first verified.

        Args:
            count: Neighbours of each query, at least 1.
            config: ``rerank`` is how many are verified.
        """
        self._fill(self._queries)
        self._fill(self._database)
        depends_on = {
            "opendelg": __version__,
            "recipe": self._database.shards.recipe.to_json(),
            "database": self._database.hash(),
            "queries": self._queries.hash(),
            "count": count,
        }
        steps = self._collection.folder / "steps"
        asked = np.flatnonzero(self._queries.is_readable())
        ids, similarities = self._nearest(asked, count, Steps(steps, depends_on))
        verified = {
            **depends_on,
            "local": self._collection.recipe.to_json(),
            "search": settings_as_dict(config),
        }
        inliers = self._inliers(asked, ids, similarities, config, Steps(steps, verified))
        nothing = Ranking.whole(np.zeros(0, np.int64), np.zeros(0, np.float32))
        rankings = [nothing] * len(self._benchmark.queries.ids)
        all_inliers = [np.zeros(0, np.int32)] * len(rankings)
        for row, query in enumerate(asked.tolist()):
            rankings[query] = Ranking.whole(ids[row], similarities[row])
            all_inliers[query] = inliers[row]
        notes = [*self._queries.unreadable("queries"), *self._database.unreadable("database")]
        return Neighbours(tuple(rankings), tuple(all_inliers), tuple(notes))

    def _fill(self, described: "_Described") -> None:
        missing = np.flatnonzero(described.positions() < 0)
        if len(missing) == 0:
            return
        with self._progress(f"extracting {described.split.name}", len(missing)) as advance:
            fill_shards(
                described.shards,
                self._extractor,
                described.split.sources(missing),
                self._workload.decode_threads,
                self._workload.batch_size,
                advance,
            )

    def _nearest(
        self, asked: np.ndarray, count: int, steps: Steps
    ) -> tuple[np.ndarray, np.ndarray]:
        """Database ids (Q, K) int64 and similarities (Q, K) float32 of the queries ``asked``."""
        found = []
        with self._progress("searching", len(asked)) as advance:
            for start in range(0, len(asked), SEARCHED_QUERIES):
                queries = asked[start : start + SEARCHED_QUERIES]
                search = partial(self._search, queries, count)
                step = steps.done(f"nearest-{start:09}-{SEARCHED_QUERIES}", search)
                found.append((step["ids"], step["similarities"]))
                for query in queries.tolist():
                    advance(query)
        none = np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
        ids, similarities = zip(*(found or [none]), strict=True)
        return np.concatenate(ids), np.concatenate(similarities)

    def _search(self, queries: np.ndarray, count: int) -> dict[str, np.ndarray]:
        database, positions = self._database, self._database.positions()
        ids, similarities = most_similar(
            self._queries.shards.descriptors(self._queries.positions()[queries]),
            database.blocks,
            lambda wanted: database.shards.descriptors(positions[wanted]),
            count,
        )
        return {"ids": ids, "similarities": similarities}

    def _inliers(
        self,
        asked: np.ndarray,
        ids: np.ndarray,
        similarities: np.ndarray,
        config: SearchConfig,
        steps: Steps,
    ) -> np.ndarray:
        """Inliers (Q, R) int32 of the first R neighbours of the queries ``asked``."""
        head = min(config.rerank, ids.shape[1])
        if head == 0 or len(asked) == 0:
            return np.zeros((len(asked), head), np.int32)
        ids, similarities = ids[:, :head], similarities[:, :head]
        size = max(1, VERIFIED_PAIRS // head)
        parts = {
            f"verified-{start:09}-{size}": slice(start, start + size)
            for start in range(0, len(asked), size)
        }
        left = [part for name, part in parts.items() if steps.kept(name) is None]
        # All before the first pair is verified, so that each phase tells the time that is left.
        of_queries = self._extract_local(
            self._benchmark.queries,
            [asked[part] for part in left],
            len(self._benchmark.queries.ids),
        )
        of_database = self._extract_local(
            self._benchmark.database,
            [ids[part] for part in left],
            len(self._benchmark.database.ids),
        )
        found = []
        with self._progress("verifying", len(asked)) as advance:
            for name, part in parts.items():
                verify = partial(
                    self._verify,
                    of_queries[asked[part]],
                    of_database,
                    ids[part],
                    similarities[part],
                    config,
                )
                found.append(steps.done(name, verify)["inliers"])
                for query in asked[part].tolist():
                    advance(query)
        return np.concatenate(found)

    def _extract_local(
        self, split: Split, wanted: Sequence[np.ndarray], num_images: int
    ) -> np.ndarray:
        """The collection's ids (N,) int64 by number; -1 for images that are not wanted."""
        stored = np.full(num_images, -1, np.int64)
        numbers = np.unique(np.concatenate([*wanted, np.zeros((0,), np.int64)], axis=None))
        kept = KeptLocal(
            self._collection,
            self._extractor,
            split.images.folder,
            self._workload.decode_threads,
            self._workload.batch_size,
        )
        parts = np.split(numbers, range(LOCAL_IMAGES, len(numbers), LOCAL_IMAGES))
        missing = sum(kept.num_missing(map(split.local_source, part.tolist())) for part in parts)
        with self._progress(f"local features of {split.name}", missing) as advance:
            for part in parts:
                stored[part] = kept.ids([*map(split.local_source, part.tolist())], advance)
        return stored

    def _verify(
        self,
        queries: np.ndarray,
        stored: np.ndarray,
        ids: np.ndarray,
        similarities: np.ndarray,
        config: SearchConfig,
    ) -> dict[str, np.ndarray]:
        """Inliers (Q, R) int32 of the collection's images (Q,) with database images (Q, R)."""
        found = np.zeros(ids.shape, np.int32)
        for row, query in enumerate(queries.tolist()):
            (image,) = self._collection.images([query])
            (local,) = self._collection.local_features([query])
            ranking = verify_head(
                VerifiedQuery(image.size, local),
                Ranking.whole(ids[row], similarities[row]),
                stored,
                self._collection,
                self._extractor,
                config,
            )
            order = np.argsort(ranking.ids)
            places = order[np.searchsorted(ranking.ids, ids[row], sorter=order)]
            found[row] = ranking.num_inliers[places]
        return {"inliers": found}


class _Described:
    """The images of a split with their shards."""

    def __init__(self, split: Split, shards: Shards) -> None:
        self.split = split
        self.shards = shards
        self._positions: tuple[int, np.ndarray] | None = None  # and how many were kept then

    def positions(self) -> np.ndarray:
        """Positions (N,) int64 in the shards; -1 where nothing is kept yet."""
        if self._positions is None or self._positions[0] != len(self.shards):
            self._positions = len(self.shards), self.shards.positions(self.split.names())
        return self._positions[1]

    def is_readable(self) -> np.ndarray:
        """(N,) bool, once all are extracted."""
        readable: np.ndarray = self.shards.is_readable()[self.positions()]
        return readable

    def hash(self) -> str:
        """Of the images that can be read, in their order."""
        readable = zip(self.split.names(), self.is_readable().tolist(), strict=True)
        return hash_of_names(name for name, is_readable in readable if is_readable)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers (B,) int64 and descriptors (B, D) float32 of all images that can be read."""
        numbers = np.full(len(self.shards), -1, np.int64)
        positions = self.positions()
        numbers[positions] = np.arange(len(positions))
        for found, descriptors in self.shards.blocks(BLOCK_ROWS, numbers >= 0):
            yield numbers[found], descriptors

    def unreadable(self, role: str) -> list[str]:
        """A note about the images that cannot be read, if there are any."""
        names = np.array(self.split.names())[~self.is_readable()].tolist()
        if not names:
            return []
        more = ", ..." if len(names) > MAX_EXAMPLES else ""
        effect = "they have no prediction" if role == "queries" else "they are found by no query"
        return [
            f"images of {self.split.name} that cannot be read: {len(names)} "
            f"({', '.join(names[:MAX_EXAMPLES])}{more}); {effect}"
        ]
