"""Every code has a page and every page a code; every example shows what it says."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import inspector
from inspector import check, codes
from inspector.errors import InspectorError, PrototxtError

from .conftest import ROOT

SOURCES = [path for package in ("inspector", "cli") for path in sorted((ROOT / package).rglob("*.py"))]
RAISERS = {
    "refuse",
    "_refuse",
    "Finding",
    "_find",
    "found",
    "mismatch",
    "_finding",
    "_input_count",
    "_refuse_inputs",
    "_size_error",
}
CODE = re.compile(r"[a-z][a-z0-9_]*(?:-[a-z0-9_]+)+|file|mean|crop|scale|channels|backend")
LOG_ONLY = {"parse", "unknown-bottom-split"}  # words of Caffe's for what has another code here


def constants(node: ast.expr) -> Iterator[str]:
    """The strings that an expression may be; a formatted one with .+ for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.IfExp(body=body, orelse=orelse):
            yield from constants(body)
            yield from constants(orelse)
        case ast.JoinedStr(values=values):
            yield "".join(re.escape(v.value) if isinstance(v, ast.Constant) else "[a-z0-9_-]+" for v in values)
        case ast.BinOp(left=left):  # "shared-" + name
            for text in constants(left):
                yield text + "[a-z0-9_-]+"


def raised() -> set[str]:
    """Patterns of all codes in the sources: the `code=` of a call, or what comes first in a call of one that raises or finds."""
    found: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "code":
                    found.update(constants(keyword.value))
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in RAISERS:
                found.update(
                    text for argument in node.args[:3] for text in constants(argument) if " " not in text.replace("\\ ", " ")
                )
    return {text for text in found if CODE.fullmatch(text.replace("\\-", "-")) or "[a-z0-9_-]+" in text}


def tabled() -> set[str]:
    """Codes of the dialects' tables of refusals."""
    folder = ROOT / "inspector" / "dialects"
    found = {code for path in folder.glob("refusals_*.toml") for code in tomllib.loads(path.read_text(encoding="utf-8"))}
    return found | set(tomllib.loads((folder / "master.toml").read_text(encoding="utf-8"))["refusals"]) - LOG_ONLY


KNOWN = {code for page in codes.pages() for code in page.codes}


def test_every_code_has_a_page() -> None:
    literal = {text.replace("\\", "") for text in raised() if "[a-z0-9_-]+" not in text}
    missing = sorted((literal | tabled()) - KNOWN)
    assert not missing, f"write a page in inspector/codes.toml for {', '.join(missing)}"
    families = [text for text in raised() if "[a-z0-9_-]+" in text]
    without = [text for text in families if not any(re.fullmatch(text, code) for code in KNOWN)]
    assert not without, f"no page in inspector/codes.toml is for {without}"


def test_every_page_has_a_code() -> None:
    everything = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    patterns = [re.compile(text) for text in raised()]
    idle = [
        code
        for code in sorted(KNOWN - tabled())
        if f'"{code}"' not in everything and not any(pattern.fullmatch(code) for pattern in patterns)
    ]
    assert not idle, f"nothing raises {', '.join(idle)}"


def test_no_code_has_two_pages() -> None:
    everything = [code for page in codes.pages() for code in page.codes]
    assert len(everything) == len(set(everything))


def test_the_document_is_up_to_date() -> None:
    assert codes.DOCUMENT.read_text(encoding="utf-8") == codes.markdown(), "run python -m inspector.codes"


def given(example: str) -> str:
    """Input layers for the blobs that an example says it is given."""
    layers = []
    for line in re.findall(r"^# (\w+: .*)$", example, re.MULTILINE):
        for name, shape in re.findall(r"(\w+): ([\dx ]+)", line):
            dims = " ".join(f"dim: {size}" for size in shape.split("x"))
            layers.append(f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}')
    return "\n".join(layers)


def found_in(example: str) -> set[str]:
    found: set[str] = set()
    for phase in ("TRAIN", "TEST"):
        try:
            found |= {finding.code for finding in check.check(inspector.loads(given(example) + example, phase))}
        except PrototxtError as error:
            found |= {finding.code for finding in check.unread(error)}
    return found


@pytest.mark.parametrize("page", [page for page in codes.pages() if page.wrong and not page.shell], ids=lambda page: page.codes[0])
def test_examples_show_it(page: codes.Page) -> None:
    assert found_in(page.wrong) & set(page.codes), f"{page.wrong} gives {found_in(page.wrong)}"
    assert not found_in(page.right) & set(page.codes)
    assert "error" not in {
        f.severity for phase in ("TRAIN", "TEST") for f in check.check(inspector.loads(given(page.right) + page.right, phase))
    }


SOLVERS = [page for page in codes.pages() if page.chapter == "Solvers" and ": " in page.right]


@pytest.mark.parametrize("page", SOLVERS, ids=lambda page: page.codes[0])
def test_examples_of_solvers_show_it(page: codes.Page, tmp_path: Path) -> None:
    for name in ("train_val.prototxt", "train.prototxt"):
        (tmp_path / name).write_text('layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 } } }')

    def found(text: str) -> set[str]:
        if "net:" not in text:
            text += ' net: "train_val.prototxt"'
        solver = tmp_path / "solver.prototxt"
        solver.write_text(text)
        return {finding.code for finding in check.check(inspector.load(solver, "TRAIN"))}

    assert found(page.wrong) & set(page.codes)
    assert not found(page.right) & set(page.codes)


def test_caffes_words_come_from_the_dialect() -> None:
    words = codes.caffe(codes.page("loss-batch"))["loss-batch"]
    assert words.startswith("loss_layer.cpp:19] Check failed:")
    assert "{" not in words


def test_pages_read_well() -> None:
    for page in codes.pages():
        assert page.title == page.title.strip() and not page.title.endswith("."), page.codes
        assert page.means.strip().endswith("."), page.codes


def test_an_unknown_code_gets_a_suggestion() -> None:
    with pytest.raises(InspectorError, match="did you mean 'unknown-bottom'") as caught:
        codes.page("unknown-botom")
    assert caught.value.code == "no-such-code"
    with pytest.raises(InspectorError):
        codes.refuse_unknown("nonsense-*")
    codes.refuse_unknown("weights-*")
