"""The documents name what exists, and their Python runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from opendelg.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
TEXT = "\n".join([(ROOT / "README.md").read_text(), *PAGES.values()])


def commands(group: Any = None, prefix: str = "delg") -> list[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        found += commands(command, full) if hasattr(command, "commands") else [(full, command)]
    return found


COMMANDS = commands()


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_is_documented(name: str, command: Any) -> None:
    options = [option for p in command.params for option in p.opts if option.startswith("--")]
    missing = [text for text in [name, *options] if text not in TEXT and text != "--help"]
    assert missing == []


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_with_an_example(name: str, command: Any) -> None:
    assert f"\n{name}" in command.help


def test_documents_show_only_commands_that_exist() -> None:
    shown = set(
        re.findall(
            r"^delg (?!-)([a-z]+(?: (?:groups|roxford5k|rparis6k|gldv2-retrieval|gldv2-recognition"
            r"|places|rescore|compare|failures|reproduce|list|info|download|import|check|reduce|calibrate)\b)?)",
            TEXT,
            re.MULTILINE,
        )
    )
    assert shown <= {name.removeprefix("delg ") for name, _ in COMMANDS}


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
