"""Place recognition: images with positions, and what is near what.

`reading` finds out which layout a folder has; each layout has a module.
"""

from opendelg.datasets.places.dataset import NearRule, PlaceImages, PlacesDataset
from opendelg.datasets.places.reading import NAMES, PlacesOptions, read_places
from opendelg.datasets.places.submission import NUM_RESULTS, write_submission

__all__ = [
    "NAMES",
    "NUM_RESULTS",
    "NearRule",
    "PlaceImages",
    "PlacesDataset",
    "PlacesOptions",
    "read_places",
    "write_submission",
]
