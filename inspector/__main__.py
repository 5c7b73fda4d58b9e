"""`python -m inspector` is the command `alexinspect`."""

from cli.main import main

main(prog_name="python -m inspector")
