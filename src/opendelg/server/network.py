"""One thread that owns the extractor and takes waiting photos of equal size through the network."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from opendelg.extraction import Extractor, PreparedImage
from opendelg.features import ImageFeatures

logger = logging.getLogger(__name__)

Waiting = tuple[PreparedImage, "Future[ImageFeatures]"]


class Network:
    """The queue before an extractor, which is not for several threads at once."""

    def __init__(
        self,
        extractor: Extractor,
        batch_size: int,
        on_batch: Callable[[int], None] = lambda _num_images: None,
    ) -> None:
        """Start the thread.

        Args:
            extractor: Used by nobody else from now on, but for `Extractor.prepare`.
            batch_size: Most images of one pass.
            on_batch: Told the size of each batch that is started.
        """
        self._extractor = extractor
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether photos are still taken."""
        return self._thread.is_alive() and not self._is_closed

    def submit(self, image: PreparedImage) -> "Future[ImageFeatures]":
        """Queue an image; a future that is cancelled before its turn costs nothing."""
        future: Future[ImageFeatures] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("network must be open, got an image after it was closed")
            self._waiting.append((image, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._on_batch(len(batch))
            try:
                features = self._extractor.extract_prepared([image for image, _ in batch])
            except Exception as error:  # whoever waits for it is told
                logger.exception("extraction failed")
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), found in zip(batch, features, strict=True):
                future.set_result(found)

    def _next_batch(self) -> list[Waiting]:
        """The first image that is still wanted, and others of its size; none at the end."""
        with self._changed:
            while True:
                batch = self._take()
                if batch or self._is_closed:
                    return batch
                self._changed.wait()

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        others: deque[Waiting] = deque()
        while self._waiting and len(batch) < self._batch_size:
            image, future = self._waiting.popleft()
            if batch and image.pixels.shape != batch[0][0].pixels.shape:
                others.append((image, future))
            elif future.set_running_or_notify_cancel():
                batch.append((image, future))
        self._waiting.extendleft(reversed(others))
        return batch
