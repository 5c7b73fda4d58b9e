"""The command `alexinspect`: a click group, one short function per command, each importing only what it uses."""

from __future__ import annotations

from typing import Any

import click

from inspector._version import __version__
from inspector.errors import InspectorError


class Trouble(click.ClickException):
    """Bad input, as one message on stderr and exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"alexinspect: {self.message}", file=file, err=True)


class Commands(click.Group):
    """The one place where an InspectorError becomes a message. Whatever else escapes is a bug and shows its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InspectorError as error:
            raise Trouble(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alexinspect", message="%(prog)s %(version)s")
def main() -> None:
    """Read, show, check and run Caffe nets without Caffe.

    A MODEL is a prototxt, a caffemodel, or the name of a model that ships (see `alexinspect models`).

    Exit status: 0 all well, 1 a difference or a finding, 2 trouble.
    """
