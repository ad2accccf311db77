"""`python -m fxcell`: the command line."""

from fxcell.host.commands import main

main()
