"""`alexinspect check`: every finding at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import Finding, UnreadableError
from inspector.tables import clean, fold

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net

PHASES = ("TRAIN", "TEST")


@click.command()
@options.models
@partial(options.net_options, phases=(*PHASES, "both"), usual="both")
@options.form("text", "json", "github", "sarif")
@click.option("--select", multiple=True, metavar="CODE", help="Only findings of this code; globs such as 'weights-*' (repeatable).")
@click.option("--ignore", multiple=True, metavar="CODE", help="No findings of this code; globs (repeatable).")
@click.option("--error-on-warning", is_flag=True, help="Exit with 1 for warnings too.")
@options.color
def check(
    models: tuple[str, ...], how: How, form: str, select: tuple[str, ...], ignore: tuple[str, ...], error_on_warning: bool
) -> int:
    """Find everything that is wrong with a net, each finding with its place and remedy.

    A file of weights is held against the MODEL before it. `alexinspect explain CODE` tells more about a finding.

    Exit status: 0 no errors, 1 errors (or warnings, with --error-on-warning), 2 trouble.
    """
    from inspector import check as checks
    from inspector import findings

    _refuse_unknown_codes((*select, *ignore))
    reports = [_report(model, weights, how) for model, weights in options.pairs(models)]
    for report in reports:
        report["found"] = checks.chosen(report["found"], select, ignore)
    found = [one for report in reports for one in report["found"]]
    counts = findings.counts(found)
    if form == "json":
        show.json({"counts": counts, "models": [_plain(report) for report in reports]})
    elif form == "sarif":
        from inspector import codes

        show.json(findings.sarif(found, codes.titles()))
    elif form == "github":
        show.lines(findings.github(found))
    else:
        show.lines(_text(reports, counts))
    return 1 if counts["error"] or (error_on_warning and counts["warning"]) else 0


def _report(model: str, weights: str | None, how: How) -> dict[str, Any]:
    """What was found in one MODEL, in which phases, and the texts in which it stands."""
    from dataclasses import replace

    from inspector import check as checks

    by_phase: dict[str, list[Finding]] = {}
    documents: dict[str, Any] = {}
    idle: list[str] = []
    net: Net | None = None
    for phase in PHASES if how.phase == "BOTH" else (how.phase,):
        try:
            net = _opened(model, replace(how, phase=phase), net)
        except UnreadableError as error:
            by_phase[phase] = checks.unread(error)
            continue
        documents |= {document.name: document for document in (net.opened.document, net.opened.solver_document) if document}
        if how.phase == "BOTH" and not checks.is_meant(net):
            idle.append(phase)
        by_phase[phase] = checks.check(net, weights)
    if len(idle) < len(by_phase):  # a file for one phase only
        by_phase = {phase: found for phase, found in by_phase.items() if phase not in idle}
    return {
        "model": model,
        "weights": weights,
        "phases": list(by_phase),
        "found": checks.merged(by_phase),
        "documents": documents,
    }


def _opened(model: str, how: How, before: Net | None) -> Net:
    """The net of MODEL; read once for both phases, unless a solver names a net for each."""
    from inspector import Net

    if before is None or before.opened.solver is not None:
        return how.open(model)
    return Net(before.opened, how.phase, how.level, how.stages, how.given, allow_python=how.allow_python)


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    from inspector import findings

    return {
        "model": report["model"],
        "weights": report["weights"],
        "phases": report["phases"],
        "findings": [findings.data(one) for one in report["found"]],
    }


def _refuse_unknown_codes(globs: tuple[str, ...]) -> None:
    from inspector import codes

    for glob in globs:
        codes.refuse_unknown(glob)


# ---- text


def _text(reports: list[dict[str, Any]], counts: dict[str, int]) -> Iterator[str]:
    """Grouped by file; each finding with its place, its source line and what to do."""
    layout = show.layout()
    paint, width = layout["paint"], layout["width"]
    for report in reports:
        for file, group in groupby(report["found"], lambda one: one.finding.where.file if one.finding.where else ""):
            yield paint(clean(file) or clean(report["model"]), "head")
            for one in group:
                yield from _finding(one, report, paint, width)
            yield ""
    said = [f"{number} {severity}{'s' * (number != 1)}" for severity, number in counts.items() if number]
    phases = sorted({phase for report in reports for phase in report["phases"]}, reverse=True)
    where = f" in {len(reports)} models" if len(reports) > 1 else ""
    total = _joined(said) if said else "no findings"
    worst = next((severity for severity, number in counts.items() if number), "good")
    yield paint(total, worst) + f"{where} (checked in {' and '.join(phases)})"


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _finding(one: Any, report: dict[str, Any], paint: Any, width: int | None) -> Iterator[str]:
    from inspector import findings

    finding = one.finding
    where = f"{finding.where.line}:{finding.where.column}: " if finding.where else ""
    only = f" (only in {one.phases[0]})" if len(report["phases"]) > len(one.phases) else ""
    head = f"{finding.severity}[{finding.code}]"
    first, *rest = fold(f"{where}{head}: {clean(findings.sentence(finding))}{only}", max(40, (width or 10_000) - 6))
    yield f"  {first.replace(head, paint(head, finding.severity), 1)}"
    yield from (f"      {line}" for line in rest)
    for line in _caret(finding, report["documents"], (width or 130) - 8):
        yield f"      {paint('|', 'dim')} {line}"
    if finding.remedy:
        for i, line in enumerate(fold(clean(finding.remedy), max(20, (width or 10_000) - 14))):
            yield f"      {paint('help:', 'good') if i == 0 else '     '} {line}"


def _caret(finding: Finding, documents: dict[str, Any], room: int) -> Iterator[str]:
    """The source line and a caret below it, without what indents them, around the column where there is not room for all."""
    if finding.where is None:
        return
    document = documents.get(finding.where.file)
    text = finding.values.get("caret") or (document.caret(finding.where) if document else "")
    line, _, mark = text.expandtabs(4).partition("\n")
    first = min(len(line) - len(line.lstrip()), max(0, len(mark) - 1))
    first = max(first, len(mark) - room)
    if mark:
        yield line[first:][:room]
        yield mark[first:]
