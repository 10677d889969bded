"""`python -m opendelg` is `delg`."""

from opendelg.cli import main

if __name__ == "__main__":
    main()
