"""All commands under one name."""

import logging
from typing import Annotated

import typer

from opendelg.cli.demo import demo
from opendelg.cli.evaluate import evaluate
from opendelg.cli.evaluate_compare import compare
from opendelg.cli.evaluate_failures import failures
from opendelg.cli.evaluate_landmarks import gldv2_recognition, gldv2_retrieval
from opendelg.cli.evaluate_places import places
from opendelg.cli.evaluate_reproduce import reproduce
from opendelg.cli.evaluate_revisited import register as register_revisited
from opendelg.cli.extract import extract
from opendelg.cli.index import index
from opendelg.cli.info import info
from opendelg.cli.match import match
from opendelg.cli.plan import plan
from opendelg.cli.remove import remove
from opendelg.cli.search import search
from opendelg.cli.serve import serve
from opendelg.cli.train import train
from opendelg.cli.verify import verify
from opendelg.cli.weights import weights
from opendelg.cli.weights_calibrate import calibrate
from opendelg.cli.weights_import import check, import_model
from opendelg.cli.weights_reduce import reduce

app = typer.Typer(
    name="delg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (plan, index, search, serve, match, extract, train, info, verify, remove, demo):
    app.command()(command)
register_revisited(evaluate)
evaluate.command()(places)
evaluate.command("gldv2-retrieval")(gldv2_retrieval)
evaluate.command("gldv2-recognition")(gldv2_recognition)
evaluate.command()(reproduce)
evaluate.command()(compare)
evaluate.command()(failures)
app.add_typer(evaluate, name="evaluate")
weights.command("import")(import_model)
weights.command()(check)
weights.command()(reduce)
weights.command()(calibrate)
app.add_typer(weights, name="weights")


def _print_version(value: bool) -> None:
    if value:
        from opendelg import __version__

        print(f"opendelg {__version__}")
        raise typer.Exit


@app.callback()
def delg(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what is done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Find every photo that shows the same place, building or object, and see why.

    \b
    delg index ~/Photos --collection photos.delg
    delg search photos.delg query.jpg --html out/
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="delg: %(message)s"
    )
