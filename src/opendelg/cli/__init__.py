"""The `delg` command: parse, call the library, print.

Each file of this package is one command.  Libraries are imported inside the commands, so that
`delg --help` answers at once.
"""

import io
import sys

from opendelg.errors import OpenDelgError

INTERRUPTED = 130  # exit status after Ctrl-C; typer ends with it too, without a word


def main() -> None:
    """Run the command line; exit status 0, 1 (a user can fix it), 2 (usage) or 3 (see index)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or locale that lacks a character must not cost the answer.
            stream.reconfigure(errors="backslashreplace")
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(_say_interrupted())
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _say_interrupted()
        raise


def _run() -> None:
    from opendelg.cli.app import app
    from opendelg.cli.opening import reason_of, shown

    try:
        app()
    except BrokenPipeError:
        # The reader of our output has gone (`delg search ... | head`).
        sys.stderr.close()
        sys.exit(1)
    except (OpenDelgError, OSError) as error:
        print(f"delg: error: {shown(reason_of(error))}", file=sys.stderr)
        sys.exit(1)


def _say_interrupted() -> int:
    print("delg: interrupted; what was committed is kept", file=sys.stderr)
    return INTERRUPTED
