"""Numbers and file names as a reader meets them."""

import re
from collections.abc import Sequence

from opendelg.evidence.records import Evidence
from opendelg.same import CONFIDENT, is_confident

# What cannot be shown or would rearrange the text around it: control characters, halves of
# surrogate pairs (bytes of a file name that are not UTF-8), and direction overrides.
_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"
    "\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    r"""``text`` with escapes such as ``\n`` or ``\xe9`` for what cannot be shown."""
    return _UNSHOWABLE.sub(lambda found: _escape(found.group()), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for the raw byte `code - 0xDC00`
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def percent(probability: float) -> str:
    """A probability in whole per cent, rounded down; never "100 %" or "0 %"."""
    whole = int(probability * 100 + 1e-9)
    if whole < 1:
        return "under 1\u00a0%"
    return f"{min(whole, 99)}\u00a0%"


def verdict(same: float | None) -> str:
    """What the probability ``same`` means, without the number."""
    if same is None or same != same:  # NaN differs from itself
        return "not rated"
    if same >= 0.95:
        return "almost certainly the same place"
    if is_confident(same):
        return "very likely the same place"
    if same >= 0.5:
        return "possibly the same place"
    return "no confident match"


def verdict_with_number(same: float | None) -> str:
    """The verdict, and the probability in brackets where there is one."""
    words = verdict(same)
    return words if same is None or same != same else f"{words} ({percent(same)})"


def short_verdict(evidence: Evidence) -> str:
    """The probability, or else the number of inliers."""
    if evidence.same is not None and evidence.is_rated:
        return percent(evidence.same)
    return count(evidence.num_inliers, "inlier", "inliers") if evidence.num_matches else "not rated"


def sentence(words: str) -> str:
    """``words`` with a capital at the beginning, the rest as it is."""
    return words[:1].upper() + words[1:]


def count(number: int, singular: str, plural: str) -> str:
    """``number`` with its noun and thousands apart: "1 match", "1,204 matches"."""
    return f"{number:,} {singular if number == 1 else plural}"


def numbers(evidence: Evidence) -> str:
    """Similarity, matches and inliers of a result in one line."""
    if evidence.num_matches == 0:
        return f"similarity {evidence.similarity:.3f}, no local matches"
    matches = count(evidence.num_matches, "match", "matches")
    inliers = count(evidence.num_inliers, "inlier", "inliers")
    return f"similarity {evidence.similarity:.3f}, {matches}, {inliers}"


def headline(evidences: Sequence[Evidence]) -> tuple[str, str]:
    """The answer of a search: a few words, and a sentence that says what they rest on."""
    if not evidences:
        return "No results", "The search returned no photo; the collection may be empty."
    found = count(len(evidences), "result", "results")
    confident = sum(evidence.is_confident for evidence in evidences)
    if confident:
        rest = f"{found} shown, the best first." if len(evidences) > 1 else "The only result shown."
        return count(confident, "confident match", "confident matches"), rest
    if not any(evidence.is_rated for evidence in evidences):
        return found, "The best first; probabilities were not estimated."
    return (
        "No confident match",
        f"No photo below shows the same place with a probability of {percent(CONFIDENT)} or more. "
        "They are only the best ones found.",
    )
