"""Local features on their way into a catalogue and out of it, where it has a codebook.

Product quantisation learns its codebook once, on the first descriptors of the collection.  Until
there are enough, records are packed in int8; then all of them are packed anew.
"""

import numpy as np

from opendelg.collection.catalogue import Catalogue
from opendelg.collection.codebook import LEARNT_ON, PART, Codebook
from opendelg.collection.packing import pack_local, unpack_local
from opendelg.errors import FormatError
from opendelg.features import LocalFeatures


def codebook_of(catalogue: Catalogue) -> Codebook | None:
    """The codebook of a catalogue, None if it has none (yet).

    Raises:
        FormatError: If it is damaged.
    """
    content = catalogue.codebook()
    return None if content is None else Codebook.from_bytes(content)


def packed(catalogue: Catalogue, local: LocalFeatures) -> bytes:
    """The record of an image's local features, as this catalogue keeps them now.

    Raises:
        FormatError: If product quantisation cannot divide the descriptors into its parts.
    """
    precision = catalogue.state().precision
    if precision != "pq":
        return pack_local(local, precision)
    if local.descriptors.shape[1] % PART:
        raise FormatError(
            f"local descriptors must have a multiple of {PART} columns for pq, got "
            f"{local.descriptors.shape[1]}; take --features 1bit"
        )
    codebook = codebook_of(catalogue)
    return pack_local(local, "int8" if codebook is None else "pq", codebook)


def learn_if_due(catalogue: Catalogue) -> None:
    """Learn the codebook once there are enough descriptors, and pack all records anew."""
    if catalogue.state().precision != "pq" or catalogue.codebook() is not None:
        return
    if catalogue.num_local() < LEARNT_ON:
        return
    ids = [image_id for (image_id,) in catalogue.query("SELECT id FROM images ORDER BY id")]
    locals_ = {i: unpack_local(record) for i, record in sorted(catalogue.records(ids).items())}
    rows = np.concatenate([local.descriptors for local in locals_.values()])
    codebook = Codebook.learn(rows[np.linspace(0, len(rows) - 1, LEARNT_ON).astype(int)])
    records = {i: pack_local(local, "pq", codebook) for i, local in locals_.items()}
    catalogue.put_codebook(codebook.to_bytes(), records)
