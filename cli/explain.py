"""`alexinspect explain`: a code, or a layer of a net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.tables import Column, fold

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector.codes import Page

LIST = (Column("code", style="type"), Column("title"), Column("chapter"))


@click.command()
@click.argument("what", nargs=-1, type=options.Model(), metavar="[CODE | MODEL LAYER]")
@options.net_options
@options.form("table", "json", "csv", "markdown")
@click.option("--walk", is_flag=True, help="Take a single argument as a MODEL, even if it is a code, too.")
@click.option("--tensorflow", is_flag=True, help="Add what TensorFlow's SAME and VALID padding give.")
@click.option(
    "--input", "side", type=click.IntRange(min=1), metavar="SIZE", help="Square images of this size instead of the net's."
)
@options.color
def explain(what: tuple[str, ...], how: How, form: str, walk: bool, tensorflow: bool, side: int | None) -> int | None:
    """Explain a CODE, or one LAYER of a MODEL; without arguments list the codes.

    A code is what stands in brackets behind a finding of `alexinspect check`, such as unknown-bottom. A MODEL without a LAYER
    is walked through: each layer with weights or windows, and the arithmetic of its size.
    """
    if len(what) > 2:
        raise click.UsageError("explain takes a CODE, or a MODEL and one of its LAYERs")
    walk = len(what) == 1 and (walk or tensorflow or side is not None or _is_model(what[0]))
    if len(what) == 2 or walk:
        return _net(what, how, form, tensorflow, side)
    if what:
        _code(what[0], form)
    else:
        _list(form)
    return None


def _is_model(name: str) -> bool:
    """Whether a name that is no code is that of a file or of a net that ships."""
    from inspector import codes, shelf

    if any(name in page.codes for page in codes.pages()):
        return False
    return name == "-" or Path(name).exists() or name.partition("/")[0] in shelf.names()


def _net(what: tuple[str, ...], how: How, form: str, tensorflow: bool, side: int | None) -> int:
    """One layer of a net, or a walk through it."""
    from inspector import explain as teacher
    from inspector.batch_size import resized

    net = how.open(what[0])
    if side is not None:
        resized(net, side)
    if len(what) == 1:
        steps = teacher.walk(net, other=tensorflow)
        show.sheet(form, teacher.walk_dict(net, steps), teacher.walk_sheet(net, steps, other=tensorflow))
    else:
        report = teacher.explain(net, what[1], tensorflow=tensorflow)
        if form == "json":
            show.json(report.to_dict())
        elif form == "table":
            show.lines(report.lines(**show.layout()))
        else:
            show.sections(form, f"{report.layer} ({report.type})", [(section.title, section.lines) for section in report.sections])
    return show.broken(net)


def _list(form: str) -> None:
    from inspector import codes

    if form != "table":
        cells = [[code, page.title, page.chapter] for page in codes.pages() for code in page.codes]
        show.rows(form, ("code", "title", "chapter"), LIST, cells)
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
    elif form == "table":
        show.lines(_page(code, page, **show.layout()))
    else:
        parts = [
            ("Means", page.means),
            ("Caffe says", codes.caffe(page).get(code, "")),
            ("Wrong", page.wrong),
            ("Right", page.right),
        ]
        show.sections(form, f"{code}: {page.title}", [(title, text.strip().split("\n")) for title, text in parts if text.strip()])


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
