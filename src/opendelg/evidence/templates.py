"""The templates of pages: everything that they print is made visible and escaped."""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from opendelg.evidence.wording import (
    count,
    numbers,
    sentence,
    short_verdict,
    verdict_with_number,
    visible,
)

_FOLDER = files("opendelg.evidence")


def page_template(name: str, *styles: str) -> Template:
    """A template of this package, with its style sheets as ``css``."""
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(
        css=Markup("".join(_text(style) for style in styles)),
        count=count,
        numbers=numbers,
        sentence=sentence,
        short_verdict=short_verdict,
        verdict_with_number=verdict_with_number,
    )
    return environment.get_template(name)


def _text(name: str) -> str:
    return _FOLDER.joinpath(name).read_text("utf-8")


def _shown(value: object) -> str:
    return value if isinstance(value, Markup) else visible(str(value))
