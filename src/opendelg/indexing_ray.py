"""Photos to a collection on a cluster by Ray tasks, which may die and are tried again.

The process that plans holds the right to write and gives out ids before any task starts; a task
reads, extracts and writes some photos and answers with what became of them.  Done twice, or by a
task thought dead, it writes the same.
"""

import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opendelg.collection import Collection, FileStat
from opendelg.collection.cluster.patience import patiently
from opendelg.collection.cluster.rows import Slot
from opendelg.collection.cluster.writing import TaskWriter
from opendelg.errors import ImageError, OpenDelgError, UnavailableError, WeightsError
from opendelg.extraction import ExtractionConfig, Extractor, extract_stream
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage
from opendelg.indexing import (
    IndexReport,
    Photo,
    Plan,
    Unchanged,
    begin_indexing,
    failure_reason,
    photo_loader,
    report_of,
    store_result,
)
from opendelg.recipes import make_extractor

_log = logging.getLogger(__name__)

TASK_IMAGES = 32  # photos of one task: what is done again if it dies
_RESERVED_TASKS = 1000  # tasks whose photos get their ids together
_WAITING_TASKS = 4  # for each that runs
_MAX_RETRIES = 20  # of one task
_ANSWER_SECONDS = 10.0  # for a connection to Ray
_QUIET_SECONDS = 30.0  # without a task that ends, after which nodes are looked at


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run have in common."""

    location: str
    precision: Any
    model: str
    sha256: str  # of the weights
    config: ExtractionConfig
    device: Any
    threads: int


Outcome = tuple[FileStat, str | None, bool]  # file, why it failed, whether it was unchanged


def index_on_ray(
    collection: Collection,
    extractor: Extractor,
    plan: Plan,
    address: str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    update: bool = False,
    progress: Callable[[Path], None] | None = None,
) -> IndexReport:
    """Carry out a plan on a Ray cluster.

    Args:
        collection: On a cluster, open for writing, made with the extractor's recipe.
        extractor: What the tasks make theirs like; the weights must be where they are here.
        plan: From `plan_indexing`; every node must find the photos under the same paths.
        address: Of the Ray cluster, as `ray.init` takes it; a process that is connected to one
            keeps that.
        device: Of tasks; auto: a GPU for each if the cluster has any, whatever this machine has.
        threads: CPU threads of a task.
        update: As of `index_photos`.
        progress: Called with each file that is done.

    Raises:
        OpenDelgError: If the cluster does not answer, or a task failed too often.
    """
    counts: Counter[str] = Counter()
    with _connected(address) as ray:
        job = _Job(
            location=collection.location,
            precision=collection.precision,
            model=collection.recipe.weights_name,
            sha256=extractor.weights.sha256,
            config=extractor.config,
            device=_device_of_tasks(ray.nodes()) if device == "auto" else device,
            threads=threads,
        )
        failures = patiently(partial(begin_indexing, collection, plan, update))
        dimensions = _dimensions(extractor)
        for photos, outcomes in _outcomes(ray, collection, job, dimensions, plan, update):
            ended = list(zip(photos, outcomes, strict=True))
            counts.update(patiently(partial(_note, collection, ended)))
            for photo, (_, reason, _) in ended:
                if reason is not None:
                    failures.append((photo.path, reason))
                if progress is not None:
                    progress(photo.path)
    patiently(collection.update_index)
    return report_of(plan, counts, sorted(failures), update)


def _note(collection: Collection, ended: list[tuple[Photo, Outcome]]) -> list[str]:
    """Write what a task does not; returns what became of each photo."""
    with collection.batch():
        return [_note_one(collection, photo, *outcome) for photo, outcome in ended]


def _note_one(
    collection: Collection, photo: Photo, stat: FileStat, reason: str | None, is_unchanged: bool
) -> str:
    if reason is not None:
        return store_result(collection, photo, stat, ImageError(reason))
    if is_unchanged:
        return store_result(collection, photo, stat, Unchanged("unchanged"))
    if photo.stored is not None and photo.stored.failure is not None:
        collection.remove([photo.root / photo.relative])  # the failure of before
    return "added" if photo.image_id is None else "updated"


def _device_of_tasks(nodes: Iterable[Mapping[str, Any]]) -> Literal["cpu", "cuda"]:
    """A GPU for each task, if any of Ray's nodes has one."""
    has_gpu = any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in nodes)
    return "cuda" if has_gpu else "cpu"


def _num_at_once(nodes: Iterable[Mapping[str, Any]], job: _Job) -> int:
    """How many tasks Ray's nodes can run at a time."""
    total = 0
    for node in nodes:
        if node["Alive"]:
            num_tasks = node["Resources"].get("CPU", 0) // job.threads
            if job.device == "cuda":
                num_tasks = min(num_tasks, node["Resources"].get("GPU", 0))
            total += int(num_tasks)
    return total


def _outcomes(
    ray: Any,
    collection: Collection,
    job: _Job,
    dimensions: tuple[int, int],
    plan: Plan,
    update: bool,
) -> Iterator[tuple[list[Photo], list[Outcome]]]:
    """What became of the photos of each task, as tasks end."""
    task = ray.remote(
        num_cpus=job.threads,
        num_gpus=1 if job.device == "cuda" else 0,
        max_retries=_MAX_RETRIES,
        retry_exceptions=[UnavailableError],
    )(_index_some)
    running: dict[Any, list[Photo]] = {}
    work = plan.work(update)
    step = TASK_IMAGES * _RESERVED_TASKS
    for start in range(0, len(work), step):
        some = work[start : start + step]
        places = [(photo.root / photo.relative, photo.root) for photo in some]
        slots = patiently(partial(collection.reserve, places, dimensions))
        for first in range(0, len(some), TASK_IMAGES):
            photos = some[first : first + TASK_IMAGES]
            running[task.remote(job, photos, slots[first : first + TASK_IMAGES])] = photos
            while len(running) > _WAITING_TASKS * max(1, _num_at_once(ray.nodes(), job)):
                yield _ended(ray, running, job)
    while running:
        yield _ended(ray, running, job)


def _ended(
    ray: Any, running: dict[Any, list[Photo]], job: _Job
) -> tuple[list[Photo], list[Outcome]]:
    """The next task that ends; warns while there is no node that could run one."""
    while not (found := ray.wait(list(running), num_returns=1, timeout=_QUIET_SECONDS)[0]):
        if _num_at_once(ray.nodes(), job) == 0:
            _log.warning(
                "Ray must have a node of %d CPU%s for a task, got none; waiting until one joins "
                "(--threads and --device say what a task takes)",
                job.threads,
                " and 1 GPU" if job.device == "cuda" else "",
            )
    ended = found[0]
    photos = running.pop(ended)
    try:
        return photos, ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OpenDelgError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise OpenDelgError(
            f"task must end within {_MAX_RETRIES} retries, got {error} for "
            f"{str(photos[0].path)!r} and those after it; run the command again, it continues"
        ) from error


def _index_some(job: _Job, photos: list[Photo], slots: list[Slot]) -> list[Outcome]:
    """One task: read, extract and write some photos."""
    extractor = _extractor(job)
    stats: dict[Photo, FileStat] = {}
    load = photo_loader(extractor, stats)
    outcomes: list[Outcome] = []
    images = []
    stream = extract_stream(photos, extractor, load, max(2, job.threads), extractor.batch_size)
    for slot, (photo, result) in zip(slots, stream, strict=True):
        stat = stats.pop(photo)
        if isinstance(result, ImageFeatures):
            images.append((slot, stat, result))
            outcomes.append((stat, None, False))
        elif isinstance(result, Unchanged):
            outcomes.append((stat, None, True))
        else:
            outcomes.append((stat, failure_reason(photo.path, result), False))
    _writer(job.location, job.precision).write(images)
    return outcomes


@lru_cache(maxsize=1)
def _extractor(job: _Job) -> Extractor:
    """The extractor of this process, which runs one task after another."""
    made = make_extractor(job.model, job.config, job.device, job.threads)
    if made.weights.sha256 != job.sha256:
        raise WeightsError(
            f"weights must be the same on all nodes, got {made.weights.sha256[:12]} instead of "
            f"{job.sha256[:12]} for {job.model!r}"
        )
    return made


@lru_cache(maxsize=1)
def _writer(location: str, precision: Any) -> TaskWriter:
    return TaskWriter(location, precision)


def _dimensions(extractor: Extractor) -> tuple[int, int]:
    """Lengths of the global and the local descriptors that an extractor makes."""
    grey = DecodedImage(np.full((64, 64, 3), 128, np.uint8), (64, 64))
    features = extractor.extract(grey)
    return len(features.global_descriptor), features.local.descriptors.shape[1]


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The ray module, connected to a cluster until the end, unless the caller has been."""
    try:
        import ray
    except ImportError as error:
        raise OpenDelgError(
            "ray must be installed for --ray, got none; run pip install 'opendelg[cluster]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnavailableError(
            f"Ray must answer, got {error} from {address!r}; start it and run the command again"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raises OSError if nothing listens at an address; Ray would try for ten minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_SECONDS).close()
