"""`alexinspect explain`: a code, or a layer of a net."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError
from inspector.tables import fold

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector.codes import Page


@click.command()
@click.argument("what", nargs=-1, type=options.Model(), metavar="[CODE | MODEL LAYER]")
@options.net_options
@options.form("text", "json")
@options.color
def explain(what: tuple[str, ...], how: How, form: str) -> None:
    """Explain a CODE, or one LAYER of a MODEL; without arguments list the codes.

    A code is what stands in brackets behind a finding of `alexinspect check`, such as unknown-bottom.
    """
    if len(what) > 2:
        raise click.UsageError("explain takes a CODE, or a MODEL and one of its LAYERs")
    if len(what) == 2:
        _layer(*what, how, form)
    elif what:
        _code(what[0], form)
    else:
        _list(form)


def _layer(model: str, layer: str, how: How, form: str) -> None:
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("inspector.explain") is None:
        raise InspectorError("explaining a layer is not part of this version", code="no-such-command", remedy="see summary --only")
    report = import_module("inspector.explain").explain(how.open(model), layer)
    if form == "json":
        show.json(report.to_dict())
    else:
        show.lines(report.lines(**show.layout()))


def _list(form: str) -> None:
    from inspector import codes

    if form == "json":
        show.json([{"code": code, "title": page.title, "chapter": page.chapter} for page in codes.pages() for code in page.codes])
    else:
        show.lines(_listing(codes.pages(), **show.layout()))


def _listing(pages: tuple[Page, ...], width: int | None, paint: Any, rule: str) -> Iterator[str]:
    chapter = ""
    for page in pages:
        if page.chapter != chapter:
            yield from ([""] if chapter else []) + [paint(page.chapter, "head")]
            chapter = page.chapter
        yield f"  {page.title}"
        yield from (f"      {paint(line, 'type')}" for line in fold(", ".join(page.codes), (width or 132) - 6))


def _code(code: str, form: str) -> None:
    from inspector import codes

    page = codes.page(code)
    if form == "json":
        show.json(
            {
                "codes": list(page.codes),
                "chapter": page.chapter,
                "title": page.title,
                "means": page.means.strip(),
                "caffe": codes.caffe(page),
                "wrong": page.wrong.strip(),
                "right": page.right.strip(),
            }
        )
    else:
        show.lines(_page(code, page, **show.layout()))


def _page(code: str, page: Page, width: int | None, paint: Any, rule: str) -> Iterator[str]:
    from inspector import codes

    room = min(width or 100, 100)
    yield from (paint(line, "head") for line in fold(f"{code}: {page.title}", room))
    yield ""
    yield from fold(page.means.strip(), room)
    said = codes.caffe(page)
    if code in said:
        yield from ("", paint("Caffe says", "label"))
        yield from (f"  {line}" for line in fold(said[code], room - 2))
    for label, example, style in (("Wrong", page.wrong, "error"), ("Right", page.right, "good")):
        if example:
            yield from ("", paint(label, style))
            yield from (f"  {line}" for line in example.strip().split("\n"))
    others = [other for other in page.codes if other != code]
    if others:
        yield from ("", paint("The same page serves", "label"))
        yield from (f"  {line}" for line in fold(", ".join(others), room - 2))
