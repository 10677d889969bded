"""Counting what is wrong with a list of photos without stopping at it."""

from dataclasses import dataclass, field

MAX_EXAMPLES = 5


@dataclass
class Faults:
    """How often one thing is wrong, and the first cases of it."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, case: str) -> None:
        """Count a case."""
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(case)
