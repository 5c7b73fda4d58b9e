"""`alexinspect diff`: a model against the log that real Caffe, or an earlier self, printed of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import Finding, InspectorError, Position
from inspector.tables import clean

from . import options, show
from .log import DialectName
from .options import How
from .progress import Progress

if TYPE_CHECKING:
    from inspector import Net
    from inspector.logdiff import Outcome
    from inspector.logparse import NetFacts

PHASES = ("TRAIN", "TEST")
DIFFERENT, TROUBLE = 1, 2


@dataclass(slots=True)
class Held:
    """What came of one model and one net of a reference log: an outcome, or the trouble that there is instead."""

    model: str
    log: str
    nets: int = 0
    outcome: Outcome | None = None
    lines: list[str] = field(default_factory=list)  # of the unified diff
    strict: bool = False
    trouble: InspectorError | None = None
    unmatched: bool = False  # a reference without a model

    @property
    def same(self) -> bool:
        if self.outcome is None:
            return False
        return not self.lines if self.strict else self.outcome.same

    @property
    def status(self) -> int:
        return 0 if self.same else TROUBLE if self.trouble and not self.unmatched else DIFFERENT

    @property
    def title(self) -> str:
        """Which net of which log, in which phase and version."""
        if self.outcome is None:
            return self.log
        which = f"net {self.outcome.net + 1} of {self.nets}, " if self.nets > 1 else ""
        return f"{self.log} ({which}{self.outcome.model.net.phase}, {self.outcome.model.words.name})"

    def findings(self) -> list[Finding]:
        """Everything wrong, as findings about the model."""
        if self.trouble is not None:
            return [replace(self.trouble.finding, where=self.trouble.finding.where or Position(self.log, 1, 1))]
        if self.outcome is None or self.same:
            return []
        where = Position(self.model, 1, 1) if Path(self.model).is_file() else None
        if self.strict:
            changed = sum(line[0] in "+-" for line in self.lines[2:])
            message = f"{changed} lines differ from {self.log}"
            return [Finding("log-lines", message, "error", where, values={"lines": changed})]
        found = [difference.finding() for difference in self.outcome.differences]
        return [replace(one, where=one.where or where) for one in found]


@click.command()
@click.argument("model", type=options.Model(), required=False)
@click.argument("reference", type=click.Path(), required=False, metavar="REFERENCE.log")
@click.option("--check-all", type=click.Path(), metavar="DIR", help="Check every model below DIR that has a reference log.")
@click.option("--net", "number", type=click.IntRange(min=1), help="Which net of the log; without it the one that fits best.")
@click.option("--phase", type=click.Choice(PHASES, case_sensitive=False), help="Phase; without it the reference's.")
@click.option("--dialect", "version", type=DialectName(), help="Caffe version; without it what the reference shows.")
@click.option("--debug-build/--release-build", "debug", default=None, help="Which build; without it what the reference shows.")
@click.option("--shape", "given", multiple=True, type=options.Shape(), help="Shape of a blob (repeatable).")
@click.option("--level", type=int, default=0, help="The level of the net's state; without it the reference's.")
@click.option("--stage", "stages", multiple=True, help="A stage of the net's state (repeatable).")
@click.option("--strict", is_flag=True, help="Compare every line byte for byte, the prefix masked; print a unified diff.")
@click.option("--accept", is_flag=True, help="Write REFERENCE.log anew, as the model is now.")
@click.option("--allow-python", is_flag=True, help="Run the classes that Python layers name: for files that you trust.")
@options.form("text", "json", "github", "junit", "sarif")
@options.color
def diff(
    model: str | None,
    reference: str | None,
    check_all: str | None,
    number: int | None,
    phase: str | None,
    version: str | None,
    debug: bool | None,
    given: tuple[tuple[str, tuple[int, ...]], ...],
    level: int,
    stages: tuple[str, ...],
    strict: bool,
    accept: bool,
    allow_python: bool,
    form: str,
) -> int:
    """Say in what a model differs from a reference log, and why that may be.

    The log may be a real one, with time stamps, noise and several nets, or one that `alexinspect log` wrote. Its Caffe version is
    recognised. A shape is reported where it first goes wrong, not for every layer behind it.

    Exit status: 0 same, 1 different, 2 trouble.
    """
    how = How(phase or "", level, stages, dict(given), allow_python=allow_python)
    asked = Asked(how, number, version, debug, strict)
    if check_all is not None:
        if model is not None or accept or number is not None:
            raise click.UsageError("--check-all takes neither MODEL and REFERENCE.log nor --net and --accept")
        return _show(_all(check_all, asked), form)
    if model is None or reference is None:
        raise click.UsageError("name a MODEL and a REFERENCE.log, or a folder with --check-all")
    if model == reference == "-" or (accept and reference == "-"):
        raise click.UsageError("- is stdin: it is one file, and cannot be written to")
    if accept:
        return _accept(model, reference, asked)
    nets = _nets(reference)
    index, net = _chosen(model, reference, nets, asked)
    return _show([_held(model, reference, nets, index, net, asked)], form)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options."""

    how: How
    number: int | None
    version: str | None
    debug: bool | None
    strict: bool


def _nets(log: str) -> list[NetFacts]:
    """The nets in a log. Raises InspectorError where there is none."""
    from inspector import logparse

    nets = logparse.read(logparse.decoded(options.content(log)))
    if not nets:
        remedy = "a log has lines such as 'Creating Layer conv1'"
        raise InspectorError(f"'{log}' tells of no net that was built", code="file", remedy=remedy)
    return nets


def _chosen(model: str, log: str, nets: Sequence[NetFacts], asked: Asked) -> tuple[int, Net]:
    """The net of the log, and the model opened in its phase."""
    from inspector import logmodel, references

    if asked.number is not None and asked.number > len(nets):
        raise InspectorError(f"'{log}' has {len(nets)} net(s), and --net is {asked.number}", code="file")
    candidates = nets if asked.number is None else [nets[asked.number - 1]]
    told = {net.phase for net in candidates}
    phase = asked.how.phase or references.named(Path(log)).phase or (told.pop() if len(told) == 1 else "")
    opened: dict[str, Net] = {}
    trouble: InspectorError | None = None
    for name in (phase,) if phase else PHASES:
        try:
            opened[name] = replace(asked.how, phase=name).open(model)
        except InspectorError as error:  # a solver may have no net for one of them
            trouble = error
    if trouble is not None and not opened:
        raise trouble
    names = {name: logmodel.layer_names(net) for name, net in opened.items()}
    index, phase = logmodel.fitting(candidates, names)
    return (index if asked.number is None else asked.number - 1), opened[phase]


def _held(model: str, log: str, nets: Sequence[NetFacts], index: int, net: Net, asked: Asked) -> Held:
    from inspector import logdiff, logstrict

    how = asked.how
    outcome = logdiff.diff(net, nets, index, dialect=asked.version, debug=asked.debug, level=how.level, stages=how.stages)
    held = Held(model, log, len(nets), outcome, strict=asked.strict)
    if asked.strict:
        held.lines = logstrict.strict(outcome.reference, outcome.model, log, model)
    return held


# ---- a folder


def _all(folder: str, asked: Asked) -> list[Held]:
    """Every reference below a folder against its model."""
    from inspector import references

    pairs = references.below(folder)
    if not pairs:
        remedy = "references lie beside X.prototxt as X.log or X.PHASE.log, or in a folder 'reference' beside it"
        raise InspectorError(f"there is no reference log below '{folder}'", code="file", remedy=remedy)
    held: list[Held] = []
    with Progress("logs", len(pairs)) as progress:
        for pair in pairs:
            held += _of_pair(pair, asked)
            progress.step()
    return held


def _of_pair(pair: Any, asked: Asked) -> list[Held]:
    log = str(pair.log)
    if pair.model is None:
        error = InspectorError("a reference log without a model", code="log-without-model", remedy="remove it, or add its prototxt")
        return [Held("", log, trouble=error, unmatched=True)]
    model = str(pair.model)
    try:
        nets = _nets(log)
        if not pair.phase and not asked.how.phase and len({net.phase for net in nets}) > 1:  # the log of a solver
            return [
                _held(model, log, nets, *_chosen(model, log, nets, replace(asked, how=replace(asked.how, phase=phase))), asked)
                for phase in PHASES
                if any(net.phase == phase for net in nets)
            ]
        return [_held(model, log, nets, *_chosen(model, log, nets, asked), asked)]
    except InspectorError as error:
        return [Held(model, log, trouble=error)]


# ---- the reference anew


def _accept(model: str, log: str, asked: Asked) -> int:
    """Write the log of the model as it is, in the reference's version and phase, or where there is none as the options say."""
    from inspector import dialect as dialects
    from inspector import logmodel, references
    from inspector.files import replacing
    from inspector.logparse import NetFacts

    said = references.named(Path(log))
    if Path(log).exists():
        nets = _nets(log)
        if len(nets) > 1:
            remedy = "give the net a reference of its own"
            raise InspectorError(f"'{log}' tells of {len(nets)} nets, and the others would be lost", code="file", remedy=remedy)
        index, net = _chosen(model, log, nets, asked)
        made = _held(model, log, nets, index, net, asked).outcome.model  # type: ignore[union-attr]  # it is there or has raised
    else:
        phase = asked.how.phase or said.phase or "TEST"
        net = replace(asked.how, phase=phase).open(model)
        words = dialects.load(asked.version or said.dialect or dialects.DEFAULT)
        debug = said.debug if asked.debug is None else asked.debug
        made = logmodel.model(net, NetFacts(1, 1), words, debug=debug, level=asked.how.level, stages=asked.how.stages)
    with replacing(log) as file:
        file.writelines(line.masked().encode("utf-8", "surrogateescape") for line in made.lines)
    show.remark(f"wrote {log}: {model} in {made.net.phase}, as {made.words.name} says it")
    if made.facts.fatal:
        show.say(Finding("log-refused", f"Caffe refuses this model: {made.net.error or made.facts.fatal}", "warning"), "warning")
    return 0


# ---- what is shown


def _show(held: Sequence[Held], form: str) -> int:
    if form == "json":
        show.json({"same": all(one.same for one in held), "references": [_data(one) for one in held]})
    elif form == "sarif":
        from inspector import codes, findings

        show.json(findings.sarif(_found(held), codes.titles()))
    elif form == "github":
        from inspector import findings

        show.lines([*findings.github(_found(held)), _total(held)])
    elif form == "junit":
        click.echo(_junit(held), nl=False)
    else:
        show.lines(_text(held))
    if form != "text" or len(held) == 1:
        _notes(held)
    return max(one.status for one in held)


def _found(held: Iterable[Held]) -> list[Any]:
    from inspector.check import Found

    return [Found(finding, (one.outcome.model.net.phase,) if one.outcome else ()) for one in held for finding in one.findings()]


def _notes(held: Sequence[Held]) -> None:
    """How the reference was read, and what was taken from it, on stderr."""
    for one in held:
        if one.outcome is None:
            continue
        show.say(Finding("recognised", one.outcome.recognised.sentence(), "note"), "note")
        for sentence in one.outcome.model.assumptions:
            show.say(Finding("assumed-shape", sentence, "note"), "note")


def _total(held: Sequence[Held]) -> str:
    if len(held) == 1:
        return f"{held[0].title}: {_verdict(held[0])}"
    met = sum(one.same for one in held)
    return f"{met} of {len(held)} references are met"


def _verdict(one: Held) -> str:
    if one.same:
        return "same"
    if one.outcome is None:
        return "trouble"
    if one.strict:
        return f"{sum(line[0] in '+-' for line in one.lines[2:])} lines differ"
    count = len(one.outcome.differences)
    return f"{count} difference{'s' * (count != 1)}"


def _text(held: Sequence[Held]) -> Iterator[str]:
    paint = show.layout()["paint"]
    for one in held:
        style = "good" if one.same else "error"
        yield f"{paint(one.title, 'head')}: {paint(_verdict(one), style)}"
        if one.trouble is not None:
            yield f"  {clean(str(one.trouble))}"
        elif one.strict:
            yield from (clean(line.rstrip("\n")) for line in one.lines)
        elif one.outcome is not None:
            for difference in one.outcome.differences:
                at = paint(f"  [line {difference.line}]", "dim") if difference.line else ""
                yield f"  {clean(str(difference))}{at}"
    if len(held) > 1:
        yield paint(_total(held), "good" if all(one.same for one in held) else "error")


def _data(one: Held) -> dict[str, Any]:
    """One reference as plain data."""
    outcome = one.outcome
    data: dict[str, Any] = {"model": one.model or None, "log": one.log, "same": one.same}
    if outcome is None:
        return {**data, "trouble": str(one.trouble)}
    known = outcome.recognised
    return {
        **data,
        "net": outcome.net + 1,
        "nets": one.nets,
        "phase": outcome.model.net.phase,
        "dialect": outcome.model.words.name,
        "recognised": {
            "version": known.version,
            "confidence": known.confidence,
            "debug_build": known.debug,
            "also": list(known.also),
        },
        "assumptions": outcome.model.assumptions,
        "differences": [difference.data() for difference in outcome.differences],
        **({"unified_diff": "".join(one.lines)} if one.strict else {}),
    }


def _junit(held: Sequence[Held]) -> str:
    """A test suite as JUnit writes it, one case per reference."""
    from xml.etree import ElementTree as ET

    failures = sum(one.status == DIFFERENT for one in held)
    errors = sum(one.status == TROUBLE for one in held)
    numbers = {"tests": str(len(held)), "failures": str(failures), "errors": str(errors)}
    suites = ET.Element("testsuites", numbers)
    suite = ET.SubElement(suites, "testsuite", {"name": "alexinspect diff", **numbers})
    for one in held:
        case = ET.SubElement(suite, "testcase", {"classname": clean(one.model or one.log), "name": clean(one.title)})
        if one.status:
            kind = "failure" if one.status == DIFFERENT else "error"
            found = one.findings()
            says = [str(d) for d in one.outcome.differences] if one.outcome and not one.strict else [str(f.message) for f in found]
            element = ET.SubElement(case, kind, {"message": _verdict(one), "type": found[0].code if found else kind})
            element.text = "\n".join(map(clean, [*says, *(line.rstrip("\n") for line in one.lines)]))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"
