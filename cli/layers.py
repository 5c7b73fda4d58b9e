"""`alexinspect layers`: the types describe themselves."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from . import options, show


class LayerType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """The name of a layer type."""

    name = "type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from inspector.layers import registry

        return [CompletionItem(name) for name in sorted(registry) if name.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("kind", metavar="[TYPE]", required=False, type=LayerType())
@options.form(*options.FORMATS)
@options.color
def layers(kind: str | None, form: str) -> None:
    """Describe the layer types, their settings and shape rules.

    Without a TYPE list them all.
    """
    from inspector import layer_docs as docs
    from inspector.sheet import Sheet
    from inspector.tables import Column

    if kind is None:
        pages = docs.pages()
        show.sheet(form, [page.to_dict() for page in pages], docs.sheet(pages))
        return
    page = docs.page(kind)
    if form == "table":
        show.lines(docs.lines(page, **show.layout()))
        return
    names = ["message", "name", "type", "default"]
    rows = [[setting.message, setting.name, setting.type, setting.default] for setting in page.settings]
    told = [("type", page.type), ("does", page.sentence), ("shape", page.rule), ("versions", ", ".join(page.versions))]
    show.sheet(form, page.to_dict(), Sheet(names, [Column(name) for name in names], rows, None, told))
