"""Local features on their way into a catalogue and out of it, where it has a codebook.

Product quantisation learns its codebook once, on the first descriptors of the collection.  Until
there are enough, records are packed in int8; then all of them are packed anew.  Only catalogues in
a folder have one.
"""

import numpy as np

from opendelg.collection.catalogue import Catalogue
from opendelg.collection.codebook import LEARNT_ON, PART, Codebook
from opendelg.collection.interface import AnyCatalogue
from opendelg.collection.packing import pack_local, unpack_local
from opendelg.errors import FormatError
from opendelg.features import LocalFeatures


def codebook_of(catalogue: AnyCatalogue) -> Codebook | None:
    """The codebook of a catalogue, None if it has none (yet).

    Raises:
        FormatError: If it is damaged.
    """
    content = catalogue.codebook() if isinstance(catalogue, Catalogue) else None
    return None if content is None else Codebook.from_bytes(content)


def packed(catalogue: AnyCatalogue, local: LocalFeatures) -> bytes:
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


def learn_if_due(catalogue: AnyCatalogue) -> None:
    """Learn the codebook once there are enough descriptors, and pack all records anew."""
    if not isinstance(catalogue, Catalogue) or catalogue.state().precision != "pq":
        return
    if catalogue.codebook() is not None or catalogue.totals().num_local < LEARNT_ON:
        return
    records = catalogue.records(catalogue.ids().tolist())
    locals_ = {i: unpack_local(record) for i, record in sorted(records.items())}
    rows = np.concatenate([local.descriptors for local in locals_.values()])
    codebook = Codebook.learn(rows[np.linspace(0, len(rows) - 1, LEARNT_ON).astype(int)])
    records = {i: pack_local(local, "pq", codebook) for i, local in locals_.items()}
    catalogue.put_codebook(codebook.to_bytes(), records)
