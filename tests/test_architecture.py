"""Rules of the house: imports point down only, and `delg --help` imports little."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import opendelg

PACKAGE = Path(opendelg.__file__).parent
LEVELS = {
    0: [
        "settings",
        "geometry",
        "image",
        "features",
        "threads",
        "errors",
        "delf_messages",
        "scrambling",
        "whole_files",
        "tar_members",
        "photo_files",
        "finding",
        "memory",
    ],
    1: [
        "model",
        "matching",
        "verification",
        "datasets",
        "metrics",
        "evidence",
        "same",
        "fusion",
        "expansion",
        "whitening",
        "client",
    ],
    2: ["collection", "runtime", "weights", "feature_files"],
    3: [
        "extraction",
        "recipes",
        "reduction",
        "budget",
        "forecast",
        "indexing",
        "indexing_ray",
        "candidates",
        "search_run",
        "search",
        "answers",
        "delf_config",
    ],
    4: ["training", "evaluation", "demo", "parity"],
    5: ["server"],
    6: ["cli", "__main__"],
}
LEVEL_OF = {part: level for level, parts in LEVELS.items() for part in parts}
HOMES = {
    "torch": {"model", "runtime", "training"},
    "lightning": {"training"},
    "faiss": {"collection"},
    "pydantic": {"settings", "server"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "prometheus_client": {"server"},
    "onnxruntime": {"runtime"},
    "typer": {"cli"},
    "boto3": {"collection"},
    "pymilvus": {"collection"},
    "ray": {"indexing_ray"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_part_has_a_level() -> None:
    assert {part for part, _ in modules()} <= LEVEL_OF.keys()


def test_imports_point_down_only() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for part, path in modules()
        for name in imported(path)
        if name.startswith("opendelg.") and LEVEL_OF[name.split(".")[1]] > LEVEL_OF[part]
    ]
    assert upward == []


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_stay_at_home(library: str) -> None:
    strangers = {
        part
        for part, path in modules()
        for name in imported(path)
        if name.split(".")[0] == library and part not in HOMES[library]
    }
    assert strangers == set()


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from opendelg.cli.app import app;"
        "print(*{'torch', 'numpy', 'cv2', 'pydantic', 'faiss', 'onnxruntime', 'rich', 'jinja2'}"
        " & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (loaded.stderr, loaded.stdout.split()) == ("", [])
