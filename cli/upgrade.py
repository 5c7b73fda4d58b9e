"""`alexinspect upgrade`: any generation to today's."""

from __future__ import annotations

import sys
from typing import Any

import click

from inspector.errors import Finding, InspectorError, UnreadableError

from . import options, show

# what an event of inspector.upgrade means
UPGRADES = {
    "upgrade-v0": "layers of the first generation",
    "upgrade-transform": "transformation fields",
    "upgrade-v1": "layers of the second generation",
    "upgrade-input": "input fields",
    "upgrade-batch-norm": "parameters of BatchNorm",
}


@click.command()
@click.argument("source", metavar="IN", type=click.Path(allow_dash=True))
@click.argument("target", metavar="OUT", type=click.Path(allow_dash=True))
def upgrade(source: str, target: str) -> None:
    """Write a net or solver of any generation in today's form.

    IN is a prototxt, a binary NetParameter or a solver, and OUT becomes the same; - is stdin or stdout. OUT may be IN: it is
    replaced when everything is written.
    """
    data, done = upgraded(source)
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        from inspector.files import replacing

        with replacing(target) as file:
            file.write(data)
    show.remark(f"upgraded {', '.join(done)}" if done else "nothing to upgrade")


def upgraded(source: str) -> tuple[bytes, list[str]]:
    """The content of the upgraded file, and what was upgraded in it. Raises InspectorError for what Caffe would refuse."""
    from inspector import opening

    data = options.content(source)
    name = "<stdin>" if source == "-" else source
    opening.refuse_foreign(data, name)
    return _binary(data, name) if opening.looks_binary(data) else _text(data, name)


def _binary(data: bytes, name: str) -> tuple[bytes, list[str]]:
    from google.protobuf.message import DecodeError

    from caffe_proto import caffe_pb2
    from inspector.draft import Draft

    try:
        proto = caffe_pb2.NetParameter.FromString(data)
    except DecodeError as error:
        raise UnreadableError(f"'{name}' is no binary NetParameter: {error}", code="corrupt-file") from None
    net, done = _net(Draft(proto))
    return net.SerializeToString(), done


def _text(data: bytes, name: str) -> tuple[bytes, list[str]]:
    from caffe_proto import caffe_pb2
    from inspector import dump, opening, prototxt
    from inspector import upgrade as passes
    from inspector.draft import Draft

    document = prototxt.parse(data, caffe_pb2.NetParameter, name)
    if solver := opening.is_solver(document):
        document = prototxt.parse(data, caffe_pb2.SolverParameter, name)
    _refuse_unknown(document.findings)
    if solver:
        proto = passes.solver(document.message)
        done = ["solver_type"] if document.message.HasField("solver_type") else []
    else:
        proto, done = _net(Draft(document.message, locate=document.position))
    return dump.text(proto).encode(), done


def _net(draft: Any) -> tuple[Any, list[str]]:
    from inspector import upgrade as passes

    draft = passes.net(draft)
    if draft.refusals:
        raise draft.refusals[0]
    return draft.proto, [UPGRADES[event.kind] for event in draft.events if event.kind in UPGRADES]


def _refuse_unknown(findings: list[Finding]) -> None:
    """What Caffe cannot read would be lost."""
    faults = [finding for finding in findings if finding.severity == "error"]
    if faults:
        raise InspectorError("\n".join(map(str, faults)), code=faults[0].code)
