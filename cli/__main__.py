"""`python -m cli` is `deskhand`."""

from cli.main import main

main()
