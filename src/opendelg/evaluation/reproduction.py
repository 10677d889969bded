"""Benchmarks run one after another by one extractor, each kept as a saved run.

Below the output folder lie ``NAME.zip``, the run of a benchmark, and ``features-HASH``, the
collection of one model and one set of settings that all benchmarks share.  A run that is there is
scored again from its file if the same model, settings and data would make it; otherwise it is told
why not and made again, and the old file becomes ``NAME.old.zip``.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendelg.errors import FormatError
from opendelg.evaluation.benchmarks import Found
from opendelg.evaluation.comparison import differences, flat
from opendelg.evaluation.progress import ByteProgress, Progress, silent, silent_bytes
from opendelg.evaluation.protocols import ReadProtocol
from opendelg.evaluation.report import Report
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.evaluation.scoring import report
from opendelg.extraction import Extractor
from opendelg.recipes import open_or_create, recipe_of

# Of what made a run: another one gives the same figures.
_INDIFFERENT = ("versions.", "model.name")


@dataclass(frozen=True)
class Reproduced:
    """One benchmark and our figures."""

    name: str
    file: Path
    run: Run
    report: Report
    is_new: bool  # False: scored again from its file


class Reproduction:
    """What runs benchmarks and keeps their runs."""

    def __init__(
        self,
        out: Path,
        extractor: Extractor,
        tell: Callable[[str], None],
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            out: Folder of runs and features; made when it is needed.
            extractor: Network and settings.
            tell: Called with what is done, and why.
            progress: Told of images and queries.
            byte_progress: Told of tars.
        """
        self._out = out
        self._extractor = extractor
        self._tell = tell
        self._progress = progress
        self._byte_progress = byte_progress

    @property
    def features(self) -> Path:
        """The collection that keeps the features of this model and these settings."""
        recipe = recipe_of(self._extractor)
        key = json.dumps([recipe.weights_sha256, recipe.extraction], sort_keys=True)
        return self._out / f"features-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def run(self, found: Found) -> Reproduced:
        """The figures of a benchmark, from its file or made anew.

        Raises:
            OpenDelgError: If its data are not as they should be.
        """
        protocol = found.read(self.features)
        file = self._out / f"{found.name}.zip"
        kept = self._kept(found.name, file, protocol)
        if kept is not None:
            self._tell(f"{found.name}: scored again from {file}")
            return Reproduced(found.name, file, kept, report(kept), is_new=False)
        self._tell(f"{found.name}: evaluating {found.place}")
        self._out.mkdir(parents=True, exist_ok=True)
        with open_or_create(self.features, self._extractor) as collection:
            run = protocol.run(collection, self._extractor, self._progress, self._byte_progress)
        if file.exists():
            file.replace(file.with_suffix(".old.zip"))
        write_run(file, run)
        return Reproduced(found.name, file, run, report(run), is_new=True)

    def _kept(self, name: str, file: Path, protocol: ReadProtocol) -> Run | None:
        """The run in a file, if it would be made again as it is."""
        if not file.exists():
            return None
        try:
            run = read_run(file)
        except FormatError as error:
            self._tell(f"{name}: made again: {error}")
            return None
        changed = changes(run.about, protocol.about(self._extractor))
        if not changed:
            return run
        self._tell(
            f"{name}: made again, as {file} was made otherwise and is kept as "
            f"{file.with_suffix('.old.zip').name}: {'; '.join(changed)}"
        )
        return None


def changes(made: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What would be made otherwise now, a line for each setting.

    Args:
        made: What made a run.
        expected: What would make it, of `ReadProtocol.about`; only what it names is looked at.
    """
    known = flat(expected)
    return [
        f"{name} {was!r} -> {now!r}"
        for name, (was, now) in differences(made, expected).items()
        if name in known and not name.startswith(_INDIFFERENT)
    ]
