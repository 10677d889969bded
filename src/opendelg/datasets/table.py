"""Tables of photos: CSV files in UTF-8 with named columns in any order."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opendelg.errors import FormatError


@dataclass(frozen=True)
class TableRow:
    """One row as it stands in the file; empty lines make none."""

    fields: list[str]  # as many as in ``header`` if the row is well formed
    header: list[str]
    line: int  # 1-based line of the file where the row ends
    where: str  # line and file, for messages

    def values(self) -> dict[str, str]:
        """The fields by their column, without spaces around them.

        Raises:
            FormatError: If the row has more or fewer fields than the header.
        """
        if len(self.fields) != len(self.header):
            raise FormatError(
                f"row must have {len(self.header)} fields, got {len(self.fields)} in {self.where}"
            )
        return {name: text.strip() for name, text in zip(self.header, self.fields, strict=True)}


def read_table(table: Path, columns: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a table that has at least ``columns``.

    Raises:
        FormatError: If the file cannot be read, is no CSV in UTF-8, or lacks a column.
        FileNotFoundError: If there is no such file.
    """
    reader = csv.reader(io.StringIO(_read_text(table), newline=""), strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            where = f"line {reader.line_num} of {str(table)!r}"
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(fields, columns, where)
                continue
            yield TableRow(fields, header, reader.line_num, where)
    except csv.Error as error:
        where = f"line {reader.line_num} of {str(table)!r}"
        raise FormatError(f"table must be valid CSV, got {str(error)!r} in {where}") from error
    if header is None:
        raise FormatError(f"table must not be empty, got no header in {str(table)!r}")


def image_name(text: str, where: str) -> str:
    """The name of an image that a table gives, as a path below the folder of images.

    Raises:
        FormatError: If it leads out of that folder.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text:
        raise FormatError(f"image must lie below the folder of images, got {text!r} in {where}")
    return str(path)


def _read_text(table: Path) -> str:
    """The text of a table, without the byte order mark that spreadsheets write."""
    try:
        data = table.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatError(
            f"table must be readable, got {error.strerror!r} in {str(table)!r}"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            f"table must be UTF-8 text, got byte {data[error.start]:#04x} in line {line} of "
            f"{str(table)!r}"
        ) from error


def _header(fields: list[str], columns: Sequence[str], where: str) -> list[str]:
    header = [field.strip() for field in fields]
    missing = [column for column in columns if column not in header]
    if missing:
        raise FormatError(f"table must have columns {', '.join(columns)}, got {header} in {where}")
    if len(set(header)) != len(header):
        raise FormatError(f"table must not repeat columns, got {header} in {where}")
    return header
