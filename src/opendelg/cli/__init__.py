"""The `delg` command: parse, call the library, print.

Each file of this package is one command.  Libraries are imported inside the commands, so that
`delg --help` answers at once.
"""

import sys


def main() -> None:
    """Run the command line; exit status 0, 1 (a user can fix it), 2 (usage) or 3 (see index)."""
    from opendelg.cli.app import app
    from opendelg.errors import OpenDelgError

    try:
        app()
    except (OpenDelgError, FileNotFoundError) as error:
        print(f"delg: error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone (`delg search ... | head`).
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        print("delg: interrupted; what was committed is kept", file=sys.stderr)
        sys.exit(130)
