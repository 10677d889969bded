"""Why a result was found: matches and regions drawn on both photos, as PNG and as one HTML page.

The records here know nothing of collections or searches: whoever searched fills in an
:class:`Evidence` per result.  The page is one file without scripts and without outside resources,
so it can be mailed, archived and opened anywhere.
"""

from opendelg.evidence.drawing import draw_evidence, png_name, write_png
from opendelg.evidence.failures_page import (
    FailedQuery,
    RankedPhoto,
    failures_title,
    write_failures_page,
)
from opendelg.evidence.page import page_html, write_page
from opendelg.evidence.records import Box, Evidence, Side
from opendelg.evidence.wording import percent, verdict
from opendelg.evidence.writing import remove_earlier_evidence

__all__ = [
    "Box",
    "Evidence",
    "FailedQuery",
    "RankedPhoto",
    "Side",
    "draw_evidence",
    "failures_title",
    "page_html",
    "percent",
    "png_name",
    "remove_earlier_evidence",
    "verdict",
    "write_failures_page",
    "write_page",
    "write_png",
]
