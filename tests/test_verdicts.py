"""229 real-world prototxts of all generations and many forks against what BVLC master made of each, in both phases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inspector
from inspector.layers import Shape

from .conftest import reference_folder

Verdict = dict[str, Any]


def verdicts() -> Iterator[Any]:
    folder = reference_folder()
    if folder is None:
        yield pytest.param("", "TEST", None, marks=pytest.mark.skip(reason="no reference folder: set ALEXINSPECT_REFERENCE"))
        return
    for line in (folder / "prototxts" / "verdicts.jsonl").read_text().splitlines():
        row = json.loads(line)
        for phase in ("TRAIN", "TEST"):
            if row[phase] is not None:
                yield pytest.param(row["file"], phase, row[phase], id=f"{row['file'].removesuffix('.prototxt')[-60:]}-{phase}")


CASES = list(verdicts())


def given_by(verdict: Verdict, path: Path, phase: str) -> dict[str, Shape]:
    """Shapes of the data layers' tops as Caffe read them from its stand-in sources."""
    net = inspector.load(path, phase)
    shapes = {layer["name"]: layer["tops"] for layer in verdict["layers"]}
    return {
        top.name: tuple(shape)
        for node in net.layers
        if node.layer.data and node.type not in ("Input", "DummyData", "MemoryData")
        for top, shape in zip(node.tops, shapes.get(node.name, []), strict=False)
    }


CHECKED = [case for case in CASES if case.values[2] is None or case.values[2]["accepted"]]


@pytest.mark.parametrize(("file", "phase", "verdict"), CHECKED)
def test_an_accepted_net_has_caffes_shapes_and_memory(file: str, phase: str, verdict: Verdict, reference: Path) -> None:
    path = reference / "prototxts" / file
    net = inspector.load(path, phase, given=given_by(verdict, path, phase))
    assert net.error is None
    ours = [(node.name, [list(top.shape) if top.shape is not None else None for top in node.tops]) for node in net.layers]
    recurrent = {node.name for node in net.layers if node.type in ("LSTM", "RNN")}
    if recurrent:  # Caffe's list has the layers of their inner nets too, and gives the last of those the outer layer's tops
        theirs = {layer["name"]: layer["tops"] for layer in verdict["layers"]}
        assert all(theirs[name] == tops for name, tops in ours if name not in recurrent)
    else:
        assert ours == [(layer["name"], layer["tops"]) for layer in verdict["layers"]]
    assert net.memory_required == verdict["memory"]
    assert net.outputs == [name for name in verdict["outputs"] if name in net.blobs]


def what_is_wrong(refusal: str) -> list[str]:
    """The words of a refusal that any honest account of it has to name: quoted names, the unknown type, both numbers."""
    if "inconsistent NetParameter" in refusal:
        return ["layer", "layers"]
    if "Unknown layer type: " in refusal:
        return [refusal.split("Unknown layer type: ")[1].split()[0]]
    if "Unknown layer name: " in refusal:
        return [refusal.split("Unknown layer name: ")[1].split()[0]]
    words = re.findall(r"""["']([^"']+)["']""", refusal.replace('"caffe.', '"'))
    if "(known types" in refusal or not words:
        words = [number for pair in re.findall(r"\((-?\d+) vs\. (-?\d+)\)", refusal) for number in pair]
    if not words:
        words = [" x ".join(shape.split()) for shape in re.findall(r"bottom\[\d\]: ([\d ]+) \(", refusal)]
    return words


@pytest.mark.parametrize(
    ("file", "phase", "verdict"),
    [case for case in CASES if case.values[2] and not case.values[2]["accepted"] and not case.values[2]["environment"]],
)
def test_a_refused_net_is_refused_for_the_same_reason(file: str, phase: str, verdict: Verdict, reference: Path) -> None:
    path = reference / "prototxts" / file
    net = inspector.load(path, phase, given=given_by(verdict, path, phase))
    refusal = verdict["refusal"]
    assert net.error is not None
    assert refusal is not None
    for word in what_is_wrong(refusal):
        assert word in str(net.error), f"{refusal!r} is not what {net.error!s} says"
    with pytest.raises(inspector.InspectorError):
        net.check()
