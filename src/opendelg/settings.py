"""Reading settings: frozen dataclasses hold the defaults, files and options fill them.

Each stage has one settings dataclass whose defaults are the published values.  Pydantic checks
the types where a mapping comes from outside; it is imported only then, because the machines
that train need no file but plain settings objects.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from opendelg.errors import FormatError

T = TypeVar("T")


def read_settings(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make the settings object ``kind`` from ``values``, nested mappings included.

    Args:
        kind: A settings dataclass.
        values: Settings by name; what is absent keeps its default.
        where: Name of the source, for error messages.

    Raises:
        FormatError: If a name is unknown (the nearest known one is offered) or a value is of
            the wrong type or out of its range.
    """
    _reject_unknown(kind, values, where)
    # Imported here: `import opendelg` and machines that only train do without.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise FormatError(f"settings must be valid, got {faults} in {where}") from error


def settings_as_dict(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain values that JSON can hold, tuples as lists."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(settings))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _reject_unknown(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    if not isinstance(values, Mapping):
        raise FormatError(f"settings must be a mapping, got {values!r} in {where}")
    known = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for name, value in values.items():
        if name not in names:
            nearest = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names)}"
            raise FormatError(f"setting must be a known name, got {name!r} in {where}; {hint}")
        nested = _dataclass_in(known[name])
        if nested is None:
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Mapping):
                _reject_unknown(nested, item, f"{where}, {name}")


def _dataclass_in(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, also as ``X | None`` and ``tuple[X, ...]``."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    found = (_dataclass_in(option) for option in typing.get_args(hint))
    return next((kind for kind in found if kind is not None), None)
