"""Feature files, for use outside a collection: our own, and those of DELG, hloc and kapture.

Coordinates are translated here and nowhere else: what is read and written are `LocalFeatures`
in our convention (see `features`).
"""

from opendelg.feature_files.delg import (
    decode_datum,
    decode_features,
    encode_datum,
    encode_features,
    read_datum,
    read_datum_pair,
    read_delg_global,
    read_delg_local,
    write_datum,
    write_datum_pair,
    write_delg_global,
    write_delg_local,
)
from opendelg.feature_files.folders import FeatureFolder, open_folder
from opendelg.feature_files.hloc import (
    hloc_images,
    read_hloc_global,
    read_hloc_local,
    write_hloc_global,
    write_hloc_local,
)
from opendelg.feature_files.kapture import (
    read_kapture_global,
    read_kapture_local,
    write_kapture_global,
    write_kapture_local,
)
from opendelg.feature_files.npz import is_current, read_npz, write_npz
from opendelg.feature_files.paths import feature_path, feature_paths

__all__ = [
    "FeatureFolder",
    "decode_datum",
    "decode_features",
    "encode_datum",
    "encode_features",
    "feature_path",
    "feature_paths",
    "hloc_images",
    "is_current",
    "open_folder",
    "read_datum",
    "read_datum_pair",
    "read_delg_global",
    "read_delg_local",
    "read_hloc_global",
    "read_hloc_local",
    "read_kapture_global",
    "read_kapture_local",
    "read_npz",
    "write_datum",
    "write_datum_pair",
    "write_delg_global",
    "write_delg_local",
    "write_hloc_global",
    "write_hloc_local",
    "write_kapture_global",
    "write_kapture_local",
    "write_npz",
]
