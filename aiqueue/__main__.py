"""``python -m aiqueue`` is the ``aiqueue`` command, where nothing is installed but a working directory."""

from aiqueue.cli import main

main()
