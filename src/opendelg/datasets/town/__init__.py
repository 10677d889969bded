"""A small town that is drawn, not photographed: photos to try search on, without a download.

Every place is a landmark in a street of ordinary houses, built of textured boxes in space and seen
by a pinhole camera from several sides, at different hours, with people and cars passing by.  All
of it follows from a seed.  The pictures are made by this code alone; nothing in them is a photo.
"""

from opendelg.datasets.town.photos import TownManifest, render_town
from opendelg.datasets.town.render import render_places, render_view
from opendelg.datasets.town.scene import Place, View, make_place, make_street, plan_view

__all__ = [
    "Place",
    "TownManifest",
    "View",
    "make_place",
    "make_street",
    "plan_view",
    "render_places",
    "render_town",
    "render_view",
]
