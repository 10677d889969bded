"""How the service runs: where it listens, who may use it, and what a request may cost."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from opendelg.errors import OpenDelgError
from opendelg.image import ImageLimits

MIN_TOKEN_LENGTH = 16  # characters; shorter ones can be guessed


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the service; the defaults fit a machine of two cores and 8 GB."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = 8000  # 0: any that is free
    token: str | None = field(default=None, repr=False)  # what clients must send; None: nothing
    allowed_hosts: tuple[str, ...] = ()  # more names for `Host`, without a token
    is_writable: bool = False  # whether photos may be added and removed
    max_bytes: int = 32 * 2**20  # of a photo that is sent; the largest phone photos have 25 MB
    max_pixels: int = 64_000_000  # decoded: 7 bytes each, for each of the decoding threads
    max_draft_pixels: int = 200_000_000  # of a JPEG that is decoded smaller
    max_requests: int = 64  # in the house at a time, most of them waiting
    max_per_client: int = 16  # of these from one address
    max_connections: int = 512  # idle ones included
    upload_seconds: float = 60.0  # for all of a request's body
    stall_seconds: float = 10.0  # without a byte: of headers, of a body, of a reader
    timeout: float = 30.0  # s that a request may wait and work, from its last byte on
    stop_seconds: float = 30.0  # to finish what runs when the service is stopped
    batch_size: int = 1  # waiting photos of equal size that the network takes at a time
    query_cache_bytes: int = 256 * 2**20  # photos and features of the last queries
    thumbnail_cache_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name != "port" and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must be between 0 and 65535, got {self.port}")
        if self.token is None and not is_own_address(self.host):
            raise OpenDelgError(
                "token must be given to listen on an address that other machines reach, got "
                f"{self.host!r} without one; use --token-file"
            )

    @property
    def image_limits(self) -> ImageLimits:
        """What a photo that is sent may cost."""
        return ImageLimits(self.max_bytes, self.max_pixels, self.max_draft_pixels)


def is_own_address(host: str) -> bool:
    """Whether only this machine reaches an address or name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_token(path: Path) -> str:
    """The token in the first line of a file.

    Raises:
        OpenDelgError: If it is too short to be secret, or has characters that no header holds.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    token = lines[0].strip() if lines else ""
    if len(token) < MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable()):
        raise OpenDelgError(
            f"token must have at least {MIN_TOKEN_LENGTH} plain characters, got {len(token)} in "
            f"the first line of {str(path)!r}; make one with `openssl rand -hex 32`"
        )
    if " " in token:
        raise OpenDelgError(f"token must have no spaces, got some in {str(path)!r}")
    return token
