"""Mutations of binary files: whatever happens to the bytes, there is a result or one UnreadableError, soon, and in little memory.

Seconds and seed come from the environment, so that it can run for as long as one wants::

    ALEXINSPECT_FUZZ_SECONDS=600 ALEXINSPECT_FUZZ_SEED=7 pytest tests/fuzz/test_fuzz_caffemodel.py
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from caffe_proto import caffe_pb2
from inspector.caffemodel import open_blob, open_model, open_state, open_weights
from inspector.errors import UnreadableError

SECONDS = float(os.environ.get("ALEXINSPECT_FUZZ_SECONDS", "0.6"))  # per kind of file
SEED = int(os.environ.get("ALEXINSPECT_FUZZ_SEED", "1"))
SLOW = 1.0  # seconds that no file of a few hundred bytes may take

# what breaks readers of the wire format: ends of varints, groups, overlong tags, huge and negative numbers, zeros
NASTY = [
    b"\x00",
    b"\x00" * 16,
    b"\xff",
    b"\x80" * 11,
    b"\xff" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\x0f",
    b"\x0b\x0c",
    b"\x2d\x00\x00\x80\x7f",
    b"\x2a\x00",
    b"\x3a\x00",
    b"\x3a\x0b\x0a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xa2\x06\x00",
    b"\x12\x00",
    b"\x0a\x80\x80\x80\x80\x10",
    b"\x41",
    b"\x62\x08",
]


def blob(proto, *, legacy: bool) -> None:
    if legacy:
        proto.num, proto.channels, proto.height, proto.width = 1, 1, 2, 3
    else:
        proto.shape.dim.extend([2, 3])
    proto.data.extend([0.5] * 6)


def v2() -> bytes:
    net = caffe_pb2.NetParameter(name="net", debug_info=True)
    for name in ("conv", "ip"):
        layer = net.layer.add(name=name, type="Convolution", bottom=["data"], top=[name])
        layer.param.add(name="w", lr_mult=2)
        layer.convolution_param.kernel_size.append(3)
        blob(layer.blobs.add(), legacy=False)
        second = layer.blobs.add(double_data=[1.0, 2.0], diff=[0.5, 0.25])
        second.shape.dim.append(2)
    return net.SerializeToString()


def v1() -> bytes:
    net = caffe_pb2.NetParameter(name="net", input=["data"], input_dim=[1, 3, 8, 7])
    layer = net.layers.add(name="conv", type=caffe_pb2.V1LayerParameter.CONVOLUTION, bottom=["data"], top=["conv"])
    blob(layer.blobs.add(), legacy=True)
    inner = net.layers.add(bottom=["conv"], top=["ip"]).layer
    inner.name, inner.type = "ip", "innerproduct"
    blob(inner.blobs.add(), legacy=True)
    return net.SerializeToString()


def unpacked() -> bytes:
    values = b"".join(b"\x2d" + bytes([0, 0, i, 63]) for i in range(6))
    content = b"\x3a\x04\x0a\x02\x02\x03" + values
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(content)]) + content
    return b"\xa2\x06" + bytes([len(layer)]) + layer


def state() -> bytes:
    proto = caffe_pb2.SolverState(iter=300, learned_net="a.caffemodel", current_step=2)
    blob(proto.history.add(), legacy=False)
    blob(proto.history.add(), legacy=True)
    return proto.SerializeToString()


def mean() -> bytes:
    proto = caffe_pb2.BlobProto()
    blob(proto, legacy=True)
    return proto.SerializeToString()


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, removed, repeated, inserted or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randrange(1, 20)]
            case 3:
                data[at:at] = rng.choice(NASTY)
            case 4:
                nasty = rng.choice(NASTY)
                data[at : at + len(nasty)] = nasty
            case 5:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[other : other + rng.randrange(40)]
            case 6:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("kind", ["v2", "v1", "unpacked", "state", "mean"])
def test_mutations(tmp_path: Path, kind: str):
    original = {"v2": v2, "v1": v1, "unpacked": unpacked, "state": state, "mean": mean}[kind]()
    own = {"state": open_state, "mean": open_blob}.get(kind, open_model)
    path = tmp_path / "fuzz.bin"
    rng = random.Random(f"{SEED} {kind}")
    end = time.monotonic() + SECONDS
    good = bad = nameless = 0
    while time.monotonic() < end:
        content = mutated(rng, original)
        path.write_bytes(content)
        start = time.process_time()
        try:
            for reader in (own, open_weights) if rng.random() < 0.1 else (own,):
                touch(reader(path), len(content))
            good += 1
        except UnreadableError as error:
            nameless += str(path) not in str(error)
            bad += 1
        except Exception as error:
            raise AssertionError(f"{kind}, {content!r}") from error
        assert time.process_time() - start < SLOW, content
    assert not nameless  # each error says which file
    assert good  # some mutations are harmless, most are not
    assert bad > good / 20


def touch(opened: object, size: int) -> None:
    """Everything that a caller may ask for."""
    if hasattr(opened, "layers"):
        blobs = [blob for layer in opened.layers for blob in layer.blobs]
        assert all(isinstance(layer.name, str) and isinstance(layer.type, str) for layer in opened.layers)
        str(opened.proto)
    else:
        blobs = getattr(opened, "history", [opened])
    for each in blobs:
        assert each.values <= size
        assert each.count < 2**31
        if each.values == each.count:
            assert each.read().shape == each.shape
        if each.has_diff:
            assert each.diff().shape == each.shape
