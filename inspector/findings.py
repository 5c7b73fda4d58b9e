"""Findings in the forms that other programs read: plain data, GitHub's workflow commands, SARIF 2.1.0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from ._version import __version__
from .check import SEVERITIES, Found
from .errors import Finding

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "note": "note"}  # SARIF's
COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}  # GitHub's


def counts(found: Iterable[Found]) -> dict[str, int]:
    """How many there are of each severity."""
    seen = Counter(one.finding.severity for one in found)
    return {severity: seen[severity] for severity in SEVERITIES}


def data(one: Found) -> dict[str, Any]:
    """One finding as plain data; `values` are the numbers that its message holds."""
    finding, where = one.finding, one.finding.where
    return {
        "code": finding.code,
        "severity": finding.severity,
        "file": where.file if where else None,
        "line": where.line if where else None,
        "column": where.column if where else None,
        "layer": finding.layer,
        "layer_type": finding.layer_type,
        "message": finding.message,
        "remedy": finding.remedy,
        "phases": list(one.phases),
        "values": {
            name: list(value) if isinstance(value, tuple) else value for name, value in finding.values.items() if _plain(value)
        },
    }


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) or (isinstance(value, (tuple, list)) and all(map(_plain, value)))


def sentence(finding: Finding) -> str:
    """Who and what, without the place."""
    who = f"layer '{finding.layer}'" if finding.layer is not None else ""
    if who and finding.layer_type:
        who += f" ({finding.layer_type})"
    return f"{who}: {finding.message}" if who else finding.message


def whole(finding: Finding) -> str:
    """Who, what and the remedy, without the place."""
    return f"{sentence(finding)}; {finding.remedy}" if finding.remedy else sentence(finding)


def github(found: Iterable[Found]) -> Iterator[str]:
    """Workflow commands, one line each; GitHub shows them beside the lines of a pull request."""
    for one in found:
        finding, where = one.finding, one.finding.where
        properties = {"title": finding.code}
        if where is not None:
            properties = {"file": where.file, "line": str(where.line), "col": str(where.column), **properties}
        settings = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
        yield f"::{COMMANDS[finding.severity]} {settings}::{_escaped(whole(finding))}"


def _escaped(text: str, more: str = "") -> str:
    for mark in "%\r\n" + more:
        text = text.replace(mark, f"%{ord(mark):02X}")
    return text


def sarif(found: Sequence[Found], titles: dict[str, str]) -> dict[str, Any]:
    """A SARIF log of one run. `titles` has a sentence for each code."""
    rules = sorted({one.finding.code for one in found})
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "alexinspect", "version": __version__, "rules": [_rule(code, titles) for code in rules]}
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, rules) for one in found],
            }
        ],
    }


def _rule(code: str, titles: dict[str, str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": code, "help": {"text": f"alexinspect explain {code}"}}
    if code in titles:
        rule["shortDescription"] = {"text": titles[code]}
    return rule


def _result(one: Found, rules: list[str]) -> dict[str, Any]:
    finding, where = one.finding, one.finding.where
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rules.index(finding.code),
        "level": LEVELS[finding.severity],
        "message": {"text": whole(finding)},
        "properties": {"phases": list(one.phases)},
    }
    if where is not None:
        place = {"artifactLocation": {"uri": _uri(where.file)}, "region": {"startLine": where.line, "startColumn": where.column}}
        result["locations"] = [{"physicalLocation": place}]
    if finding.layer is not None:
        result.setdefault("locations", [{}])[0]["logicalLocations"] = [{"name": finding.layer, "kind": "element"}]
    return result


def _uri(file: str) -> str:
    uri = quote(file.replace("\\", "/").encode("utf-8", "surrogateescape"))
    return f"file://{uri}" if file.startswith("/") else uri
