"""`alexinspect draw`: the graph as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError, MissingExtra

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net

RASTER = {".png": "png", ".pdf": "pdf"}


@click.command()
@options.model
@options.net_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="FILE.svg, .html, .dot, .png or .pdf; - or nothing is DOT on stdout.",
)
@click.option(
    "--fold/--no-fold", default=None, help="Each block of a common prefix as one box; from 60 layers on unless said otherwise."
)
@click.option("--only", multiple=True, metavar="GLOB", help="Only layers whose names match (repeatable).")
@click.option("--left-right", is_flag=True, help="From left to right instead of top down.")
@options.color
def draw(model: str, how: How, output: str | None, fold: bool | None, only: tuple[str, ...], left_right: bool) -> int:
    """Draw the graph of a net: shapes on edges, in-place layers stacked on their maker, blocks folded.

    SVG, HTML and DOT need nothing else; PNG and PDF need Graphviz, or the extra `pictures`. HTML is the page of `alexinspect view`,
    with both phases, and folds only if told to.
    """
    suffix = Path(output).suffix.lower() if output and output != "-" else ".dot"
    nets = how.both(model) if suffix == ".html" else [how.open(model)]
    _write(_content(nets, suffix, fold=fold, only=only, sideways=left_right), output)
    return show.broken(nets[0])


def _content(nets: list[Net], suffix: str, **how: Any) -> bytes:
    from inspector.picture import svg
    from inspector.picture.scene import scene

    drawn = scene(nets[0], **how)
    if not drawn.boxes:
        raise InspectorError("there is nothing to draw", code="nothing-to-draw", remedy="check --only, and the phase")
    if suffix == ".html":
        from inspector.picture.page import page

        return page(nets, **how).encode()
    if suffix == ".svg":
        return svg.svg(drawn).encode()
    if suffix in (".dot", ".gv"):
        return svg.dot(drawn).encode()
    if suffix in RASTER:
        return _raster(svg.svg(drawn), svg.dot(drawn), RASTER[suffix])
    raise InspectorError(f"'{suffix}' is no kind of picture", code="unknown-format", remedy="use .svg, .html, .dot, .png or .pdf")


def _raster(svg: str, dot: str, kind: str) -> bytes:
    """PNG or PDF: our own layout through cairosvg where that is installed, else Graphviz with its own."""
    from inspector.picture.svg import HALO

    try:
        import cairosvg
    except (ImportError, OSError):  # OSError: it is there, and the cairo library is not
        return _graphviz(dot, kind)
    plain = svg.replace(HALO, "")  # cairosvg would draw the halo over the text
    return bytes(getattr(cairosvg, f"svg2{kind}")(bytestring=plain.encode()))


def _graphviz(dot: str, kind: str) -> bytes:
    import subprocess

    try:
        done = subprocess.run(["dot", f"-T{kind}"], input=dot.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        message = f"{kind.upper()} needs Graphviz's program dot, or the extra 'pictures'"
        raise MissingExtra(message, code="missing-extra", remedy="pip install 'alexinspect[pictures]', or write .svg") from None
    if done.returncode:
        raise InspectorError(
            f"dot failed: {done.stderr.decode(errors='replace').strip()}", code="graphviz", remedy="write .svg instead"
        )
    return done.stdout


def _write(content: bytes, output: str | None) -> None:
    if not output or output == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    from inspector.files import replacing

    with replacing(output) as file:
        file.write(content)
