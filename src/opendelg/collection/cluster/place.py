"""Places of photos as text: the root's id and the path, in characters that Milvus takes literally.

Other bytes than letters, digits, and ``/ . -`` and blanks become ``=`` and two hex digits: a path
may have any byte, and the beginnings of places must be beginnings of paths.
"""

import re


def place_of(root_id: int, path: bytes) -> str:
    """The place of a path below a root, or the beginning of all places below it."""
    plain = re.sub(rb"[^A-Za-z0-9/. -]", lambda found: b"=%02X" % found[0][0], path)
    return f"{root_id}/{plain.decode('ascii')}"


def parse_place(place: str) -> tuple[int, bytes]:
    """Root id and path."""
    root_id, _, plain = place.partition("/")
    path = re.sub(
        rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), plain.encode("ascii")
    )
    return int(root_id), path
