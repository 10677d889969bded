"""The file of predictions that the evaluation of MSLS reads.

One line per query: its key, then the keys of the results, best first, with spaces between them
and as many in every line (``numpy.loadtxt`` reads it).  The challenge's server took a .zip with
one such .csv in it.  Source: mapillary/mapillary_sls (MIT), README at b6c4e43 and
files/example_msls_im2im_prediction.csv; it does not say how many results, and the measures look
at 20.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opendelg.whole_files import replacing

NUM_RESULTS = 25
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # equal predictions, equal bytes


def write_submission(
    path: Path,
    query_keys: Sequence[str],
    database_keys: Sequence[str],
    rankings: Sequence[np.ndarray],
) -> None:
    """Write predictions, whole or not at all; as a .zip with one .csv if ``path`` ends in .zip.

    Args:
        path: The file.
        query_keys: Q names.
        database_keys: N names.
        rankings: Q arrays (K,) int64 of database ids, best first, of one length.

    Raises:
        ValueError: If there is not one ranking per query, or their lengths differ.
        OSError: If the file cannot be written.
    """
    if len({len(ranking[:NUM_RESULTS]) for ranking in rankings}) > 1:
        raise ValueError("rankings must be of one length, or all of 25 and more")
    lines = [
        " ".join([key, *(database_keys[image_id] for image_id in ranking[:NUM_RESULTS])]) + "\n"
        for key, ranking in zip(query_keys, rankings, strict=True)
    ]
    content = "".join(lines).encode()
    with replacing(path) as part:
        if path.suffix.lower() != ".zip":
            part.write_bytes(content)
            return
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(zipfile.ZipInfo(f"{path.stem}.csv", _LONG_AGO), content)
        part.write_bytes(archive.getvalue())
