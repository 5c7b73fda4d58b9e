"""How fast a prototxt is read, against protobuf's own text parser and against the least that any parser has to do.

    python benchmarks/parsing.py [FILE]

Without FILE the largest prototxt is taken that ships with the project or lies in the reference folder. Times are CPU time, the
best of several rounds. The first reading of a process builds the tables of the message types, so it is stated apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from google.protobuf import text_format  # noqa: E402 - the checkout is measured, installed or not

from caffe_proto import caffe_pb2  # noqa: E402
from inspector import prototxt  # noqa: E402

GOAL = 4.0  # times as fast as text_format


def big_net() -> Path:
    """ResNet-152 where it is, else the largest net that ships."""
    reference = Path(os.environ.get("ALEXINSPECT_REFERENCE", ROOT.parent / "shared" / "reference"))
    resnet = reference / "logs" / "zoo" / "resnet152.prototxt"
    if resnet.is_file():
        return resnet
    return max((ROOT / "models").rglob("*.prototxt"), key=lambda path: path.stat().st_size)


def best(work: Callable[[], object], rounds: int) -> float:
    """Milliseconds of CPU."""
    times = []
    for _ in range(rounds):
        start = process_time()
        work()
        times.append(process_time() - start)
    return min(times) * 1000


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else big_net()
    text = path.read_bytes()

    start = perf_counter()
    document = prototxt.parse(text)
    first = (perf_counter() - start) * 1000
    expected = text_format.Parse(text, caffe_pb2.NetParameter())
    assert document.message == expected, "the two parsers disagree"

    wire = expected.SerializeToString()
    last = ("layer", len(expected.layer) - 1, "name") if expected.layer else ("name",)
    theirs = best(lambda: text_format.Parse(text, caffe_pb2.NetParameter()), 5)
    ours = best(lambda: prototxt.parse(text), 20)
    tokens = best(lambda: prototxt._TOKEN.findall(text), 20)
    binary = best(lambda: caffe_pb2.NetParameter.FromString(wire), 20)
    position = best(lambda: prototxt.parse(text).position(last), 20) - ours

    print(f"{path.name}: {len(text):,} bytes, {len(prototxt._TOKEN.findall(text)):,} tokens, {len(expected.layer)} layers")
    print(f"  text_format.Parse        {theirs:8.2f} ms")
    print(f"  prototxt.parse           {ours:8.2f} ms   {theirs / ours:.1f} times as fast (goal {GOAL:g})")
    print(f"  first parse of a process {first:8.2f} ms   {theirs / first:.1f} times as fast")
    print(f"  floor: cut into tokens   {tokens:8.2f} ms")
    print(f"         from binary form  {binary:8.2f} ms   so {ours / (tokens + binary):.1f} times the floor")
    print(f"  first position asked for {position:8.2f} ms")


if __name__ == "__main__":
    main()
