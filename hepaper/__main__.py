"""``python -m hepaper`` is the command line."""

from hepaper.cli import main

main()
