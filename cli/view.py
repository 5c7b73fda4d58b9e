"""`alexinspect view`: the net as a page in the browser."""

from __future__ import annotations

import click

from . import options, show
from .options import How


@click.command()
@options.model
@click.argument("weights", required=False, type=click.Path())
@options.net_options
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page there and open nothing.")
@options.color
def view(model: str, weights: str | None, how: How, output: str | None) -> int:
    """Show a net in the browser: graph, table, search, and all about a layer.

    With WEIGHTS also their statistics and the first filters. The page is one file that needs no network, with both phases in it.
    """
    from inspector.files import replacing
    from inspector.picture.page import page

    nets = how.both(model)
    text = page(nets, weights=weights)
    target = output or _temporary()
    with replacing(target) as file:
        file.write(text.encode())
    show.remark(f"written to {target}")
    if output is None and click.launch(f"file://{target}"):
        show.remark("no browser could be opened; open the file yourself")
    return show.broken(nets[0])


def _temporary() -> str:
    """A file that stays after the command, because the browser reads it later."""
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(prefix="alexinspect-", suffix=".html", delete=False) as file:
        return file.name
