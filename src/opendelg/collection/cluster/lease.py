"""The right to write to a collection on a cluster: an object that its holder keeps renewing.

Whoever finds the object unchanged for `DEAD_AFTER` seconds takes it over; clocks need not agree.
The store must know conditional writes, as Amazon's, MinIO and Ceph do.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid

from opendelg.collection.cluster.objects import Objects
from opendelg.collection.connection import WriterBusyError
from opendelg.errors import OpenDelgError

_log = logging.getLogger(__name__)

RENEW_EVERY = 3.0  # s
DEAD_AFTER = 15.0  # s without a renewal
_KEY = "writer.json"


class Lease:
    """Held until it is closed, or another process took it because it was not renewed."""

    def __init__(self, objects: Objects, tag: str, owner: str) -> None:
        """Use `Lease.take`."""
        self._objects = objects
        self._tag: str | None = tag
        self._owner = owner
        self._renewed_at = time.monotonic()
        self._mutex = threading.Lock()
        self._is_closed = threading.Event()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @classmethod
    def take(cls, objects: Objects, location: str) -> "Lease":
        """The lease, at once or after its dead holder's time.

        Raises:
            WriterBusyError: If a living process holds it.
        """
        owner = f"{socket.gethostname()} process {os.getpid()} {uuid.uuid4().hex}"
        tag = objects.put_if(_KEY, _content(owner), None)
        if tag is None:
            seen = objects.tag(_KEY)
            started = time.monotonic()
            while time.monotonic() - started < DEAD_AFTER and seen is not None:
                time.sleep(RENEW_EVERY / 4)
                now = objects.tag(_KEY)
                if now != seen and now is not None:
                    raise _busy(location)
                seen = now
            tag = objects.put_if(_KEY, _content(owner), seen)
        if tag is None:
            raise _busy(location)
        return cls(objects, tag, owner)

    def require(self) -> None:
        """Raises OpenDelgError unless the lease is still held; call it before each commit."""
        if time.monotonic() - self._renewed_at > RENEW_EVERY * 2:
            self._renew()
        if self._tag is None:
            raise OpenDelgError(
                "process must keep the right to write, got stopped or cut off for more than "
                f"{DEAD_AFTER:.0f} s while another one took it; run the command again"
            )

    def close(self) -> None:
        """Lets others write; may be repeated."""
        self._is_closed.set()
        with self._mutex:
            try:
                if self._tag is not None and self._objects.tag(_KEY) == self._tag:
                    self._objects.delete(_KEY)
            except OpenDelgError as error:
                _log.info("right to write ends in %.0f s: %s", DEAD_AFTER, error)
            self._tag = None

    def _keep(self) -> None:
        while not self._is_closed.wait(RENEW_EVERY):
            try:
                self._renew()
            except OpenDelgError as error:
                _log.info("right to write is not renewed: %s", error)

    def _renew(self) -> None:
        with self._mutex:
            if self._tag is None:
                return
            started = time.monotonic()
            tag = self._objects.put_if(_KEY, _content(self._owner), self._tag)
            if tag is None and self._owner.encode() in (self._objects.get(_KEY) or b""):
                tag = self._objects.tag(_KEY)  # an answer was lost, not the lease
            self._tag, self._renewed_at = tag, started


def _content(owner: str) -> bytes:
    """New content each time, so that the tag changes."""
    return json.dumps({"owner": owner, "renewed": time.time()}).encode()


def _busy(location: str) -> WriterBusyError:
    return WriterBusyError(
        f"collection must have one writer at a time, got a second one for {location!r}; "
        "wait until the other `delg index` or `delg remove` is done"
    )
