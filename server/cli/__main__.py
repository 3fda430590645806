"""``python -m server.cli``: the command, for the processes that it starts itself."""

from server.cli import main

main()
