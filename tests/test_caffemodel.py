"""Reading and writing of binary files, held against protobuf's own decoder, real files, and damage of every kind."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe_proto import caffe_pb2
from inspector import caffemodel, foreign
from inspector.caffemodel import open_blob, open_model, open_state, open_weights, read_blob, write_model, write_state
from inspector.errors import InspectorError, MissingExtra, UnreadableError

# ---- an encoder of our own, for forms that protobuf would not write


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def sub(number: int, *parts: bytes) -> bytes:
    """A length-delimited field."""
    content = b"".join(parts)
    return tag(number, 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return tag(field, 0) + varint(value)


def floats(values, form: str = "f") -> bytes:
    return struct.pack(f"<{len(values)}{form}", *values)


def shape(*dims: int) -> bytes:
    return sub(7, sub(1, *map(varint, dims)))


def model(*blobs: bytes, name: bytes = b"ip") -> bytes:
    """A V2 file of one layer with these blobs."""
    return sub(1, b"net") + sub(100, sub(1, name), sub(2, b"InnerProduct"), *(sub(7, blob) for blob in blobs))


VALUES = [0.5, -1.25, 3.0, float("inf"), 1e-40, -0.0]  # 2 x 3


@pytest.fixture
def opened(tmp_path):
    """Open bytes as a file of weights."""

    def opener(content: bytes, reader=open_weights):
        path = tmp_path / "some.caffemodel"
        path.write_bytes(content)
        return reader(path)

    return opener


def only_blob(stored):
    assert len(stored.layers) == 1
    assert len(stored.layers[0].blobs) == 1
    return stored.layers[0].blobs[0]


def bits(array) -> bytes:
    return np.ascontiguousarray(array, np.float32).tobytes()


# ---- every form on the wire

DATA_FORMS = {
    "packed": sub(5, floats(VALUES)),
    "unpacked": b"".join(tag(5, 5) + floats([value]) for value in VALUES),
    "packed in three pieces, one empty": sub(5, floats(VALUES[:2])) + sub(5) + sub(5, floats(VALUES[2:])),
    "unpacked and packed": tag(5, 5) + floats(VALUES[:1]) + sub(5, floats(VALUES[1:])),
    "unpacked, with a field in between": b"".join(tag(5, 5) + floats([value]) + number(77, 300) for value in VALUES),
    "long tags": b"".join(b"\xad\x80\x00" + floats([value]) for value in VALUES),
    "double": sub(8, floats(VALUES, "d")),
    "double, unpacked": b"".join(tag(8, 1) + floats([value], "d") for value in VALUES),
    "double goes before float": sub(5, floats([9.0] * 5)) + sub(8, floats(VALUES, "d")),
    "raw float": number(10, 1) + sub(12, floats(VALUES)),
    "raw double, its type last": sub(12, floats(VALUES, "d")) + number(10, 0),
}


@pytest.mark.parametrize("form", DATA_FORMS)
def test_values_are_found_in_every_form(opened, form):
    blob = only_blob(opened(model(shape(2, 3) + DATA_FORMS[form])))
    assert (blob.shape, blob.legacy, blob.values, blob.count) == ((2, 3), False, 6, 6)
    assert blob.dtype == ("float64" if "double" in form else "float32")
    got = blob.read()
    assert bits(got) == floats(VALUES)
    assert got.ctypes.data % 64 == 0
    assert got.flags.writeable


def test_half_precision_values(opened):
    blob = only_blob(opened(model(shape(2, 3) + number(10, 2) + sub(12, np.array(VALUES, "<f2").tobytes()))))
    assert blob.dtype == "float16"
    assert bits(blob.read()) == bits(np.array(VALUES, "<f2").astype(np.float32))


def test_doubles_beyond_float32_become_infinite_without_a_warning(opened):
    assert only_blob(opened(model(shape(1) + sub(8, floats([1e300], "d"))))).read()[0] == np.inf


def test_values_that_span_several_blocks(opened):
    wanted = np.arange(150_001, dtype=np.float32)
    single = np.empty(len(wanted), [("tag", "u1"), ("value", "<f4")])
    single["tag"], single["value"] = 0x2D, wanted
    for content in (single.tobytes(), sub(8, wanted.astype("<f8").tobytes())):
        assert bits(only_blob(opened(model(shape(len(wanted)) + content))).read()) == bits(wanted)


def test_read_into_an_array(opened):
    blob = only_blob(opened(model(shape(2, 3) + DATA_FORMS["packed"])))
    out = np.zeros((3, 2), np.float32)
    assert blob.read(out) is out
    assert bits(out) == floats(VALUES)
    for wrong in (np.zeros((2, 2), np.float32), np.zeros((2, 3)), np.zeros((2, 6), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match="contiguous float32"):
            blob.read(wrong)


@pytest.mark.parametrize("diff", [sub(6, floats([7.0] * 6)), sub(9, floats([7.0] * 6, "d")), (tag(6, 5) + floats([7.0])) * 6])
def test_diff(opened, diff):
    blob = only_blob(opened(model(shape(2, 3) + DATA_FORMS["packed"] + diff)))
    assert blob.has_diff
    assert (blob.diff() == np.full((2, 3), 7)).all()
    assert bits(blob.read()) == floats(VALUES)


def test_no_diff(opened):
    blob = only_blob(opened(model(shape(2, 3) + DATA_FORMS["packed"])))
    assert not blob.has_diff
    assert blob.diff() is None


def test_shapes(opened):
    data = sub(5, floats([1.0]))
    scalar, single, legacy, both, some, two = (
        opened(
            model(
                data,  # a scalar has no shape
                sub(7, number(1, 1)) + data,  # sizes one by one
                number(4, 3) + number(3, 2) + number(2, 1) + number(1, 1) + DATA_FORMS["packed"],
                shape(6)
                + number(1, 1)
                + number(2, 1)
                + number(3, 2)
                + number(4, 3)
                + DATA_FORMS["packed"],  # Caffe looks at num first
                number(4, 5),  # the others are 0
                shape(2) + shape(3) + DATA_FORMS["packed"],  # protobuf merges a message that comes twice
            )
        )
        .layers[0]
        .blobs
    )
    assert [blob.shape for blob in (scalar, single, legacy, both, some, two)] == [
        (),
        (1,),
        (1, 1, 2, 3),
        (1, 1, 2, 3),
        (0, 0, 0, 5),
        (2, 3),
    ]
    assert [blob.legacy for blob in (scalar, single, legacy, both, some, two)] == [False, False, True, True, True, False]
    assert scalar.read().shape == ()
    assert scalar.read() == 1
    assert some.read().shape == (0, 0, 0, 5)


def test_legacy_shapes_fit_as_in_shape_equals(opened):
    legacy = only_blob(opened(model(number(1, 1) + number(2, 1) + number(3, 2) + number(4, 3) + DATA_FORMS["packed"])))
    for fitting in ((2, 3), (1, 2, 3), (1, 1, 2, 3)):
        assert legacy.fits(fitting)
    for other in ((3, 2), (6,), (2, 3, 1, 1), (1, 1, 1, 2, 3)):
        assert not legacy.fits(other)
    today = only_blob(opened(model(shape(1, 2, 3) + DATA_FORMS["packed"])))
    assert today.fits((1, 2, 3))
    assert not today.fits((2, 3))


def test_fewer_or_more_values_than_the_shape_asks_for(opened):
    for values in ([1.0] * 5, [1.0] * 7, []):
        blob = only_blob(opened(model(shape(2, 3) + sub(5, floats(values)))))
        assert (blob.count, blob.values) == (6, len(values))
        with pytest.raises(UnreadableError) as caught:
            blob.read()
        assert caught.value.code == "value-count"
        assert (caught.value.values["count"], caught.value.values["values"]) == (6, len(values))
        assert "layer 'ip'" in str(caught.value)


# ---- generations

BLOB = number(1, 1) + number(2, 1) + number(3, 2) + number(4, 3) + DATA_FORMS["packed"]


def test_v1(opened):
    stored = opened(
        sub(2, sub(6, BLOB), number(5, 14), sub(4, b"fc8"), sub(2, b"data"), sub(3, b"fc8")) + sub(2, number(5, 4), sub(4, b"c"))
    )
    assert [(layer.name, layer.type, layer.generation, len(layer.blobs)) for layer in stored.layers] == [
        ("fc8", "InnerProduct", "V1", 1),
        ("c", "Convolution", "V1", 0),
    ]
    assert stored.layers[0].blobs[0].name == "blob 0 of layer 'fc8'"  # though the name came after the blob
    assert bits(stored.layers[0].blobs[0].read()) == floats(VALUES)
    assert list(stored.proto.layers[0].bottom) == ["data"]


def test_v0(opened):
    inner = sub(1, b"conv1") + sub(2, b"conv") + sub(50, BLOB)
    halves = sub(2, sub(1, sub(1, b"ip")), sub(1, sub(2, b"innerproduct"), sub(50, BLOB)))  # one message in two pieces
    stored = opened(sub(2, sub(1, inner), sub(2, b"data"), sub(3, b"conv1")) + halves)
    assert [(layer.name, layer.type, layer.generation) for layer in stored.layers] == [
        ("conv1", "Convolution", "V0"),
        ("ip", "InnerProduct", "V0"),
    ]
    for layer in stored.layers:
        assert bits(layer.blobs[0].read()) == floats(VALUES)
    assert stored.proto.layers[0].layer.type == "conv"
    assert len(stored.proto.layers[0].layer.blobs[0].data) == 0


def test_types_that_nobody_knows_stay_as_they_are(opened):
    stored = opened(sub(2, sub(4, b"a"), number(5, 999)) + sub(2, sub(1, sub(2, b"padding"))) + sub(100, sub(2, b"Own")))
    assert [layer.type for layer in stored.layers] == ["999", "padding", "Own"]


def test_the_message_keeps_everything_but_values(opened):
    full = caffe_pb2.NetParameter(name="net", debug_info=True)
    layer = full.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
    layer.convolution_param.num_output = 6
    layer.convolution_param.kernel_size.append(5)
    layer.param.add(lr_mult=2)
    blob = layer.blobs.add(data=VALUES, diff=VALUES)
    blob.shape.dim.extend([2, 3])
    proto = opened(full.SerializeToString()).proto
    del blob.data[:], blob.diff[:]
    assert proto == full


def test_names_of_any_bytes(opened):
    stored = opened(sub(1, b"\xff") + sub(100, sub(1, b"a\xfe\x00b"), sub(3, b"\xc3"), sub(4, "größe".encode())))
    layer = stored.proto.layer[0]
    assert (stored.proto.name, stored.layers[0].name, layer.name) == ("\\xff", "a\\xfe\x00b", "a\\xfe\x00b")
    assert (layer.bottom[0], layer.top[0]) == ("\\xc3", "größe")


# ---- real files


def every_file(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.rglob(pattern))
    assert files
    return files


def test_real_weights_equal_protobufs_own_decoding(reference):
    generations = set()
    for path in every_file(reference, "*.caffemodel"):
        full = caffe_pb2.NetParameter.FromString(path.read_bytes())
        stored = open_weights(path)
        layers = list(full.layer) + list(full.layers)
        assert [layer.name for layer in stored.layers] == [layer.name for layer in layers]
        for mine, layer in zip(stored.layers, layers, strict=True):
            generations.add(mine.generation)
            assert len(mine.blobs) == len(layer.blobs)
            for blob, real in zip(mine.blobs, layer.blobs, strict=True):
                assert bits(blob.read()) == bits(np.array(real.data))
                legacy = real.HasField("num")
                assert blob.shape == ((real.num, real.channels, real.height, real.width) if legacy else tuple(real.shape.dim))
                del real.data[:], real.diff[:]
        assert stored.proto == full
    assert generations == {"V1", "V2"}


def test_real_solver_states(reference):
    for path in every_file(reference, "*.solverstate"):
        full = caffe_pb2.SolverState.FromString(path.read_bytes())
        state = open_state(path)
        assert (state.iter, state.learned_net, state.current_step) == (full.iter, full.learned_net, full.current_step)
        assert len(state.history) == len(full.history)
        for blob, real in zip(state.history, full.history, strict=True):
            assert bits(blob.read()) == bits(np.array(real.data))


def test_real_mean_files(reference):
    for path in every_file(reference, "*.binaryproto"):
        full = caffe_pb2.BlobProto.FromString(path.read_bytes())
        blob = read_blob(path)
        assert bits(blob) == bits(np.array(full.data))
        assert blob.shape == ((full.num, full.channels, full.height, full.width) if full.HasField("num") else tuple(full.shape.dim))


def test_real_hdf5_weights_and_states(reference):
    for path in every_file(reference, "*.caffemodel.h5"):
        stored = open_weights(path)
        with h5py.File(path, "r") as file:
            assert [layer.name for layer in stored.layers] == list(file["data"])
            for layer in stored.layers:
                assert [str(blob.index) for blob in layer.blobs] == list(file["data"][layer.name])
                for blob in layer.blobs:
                    real = file["data"][layer.name][str(blob.index)]
                    assert blob.shape == real.shape
                    assert bits(blob.read()) == bits(real[()])
    for path in every_file(reference, "*.solverstate.h5"):
        state = open_state(path)
        with h5py.File(path, "r") as file:
            assert state.iter == file["iter"][0]
            assert state.learned_net == file["learned_net"][()].decode()
            assert len(state.history) == len(file["history"]) > 0
            for blob in state.history:
                assert bits(blob.read()) == bits(file["history"][str(blob.index)][()])


# ---- size


def test_a_big_file_costs_neither_time_nor_memory(tmp_path):
    path = tmp_path / "big.caffemodel"
    count = 60_000_001
    content = sub(1, b"big")
    blob = shape(count) + tag(5, 2) + varint(4 * count)
    layer = sub(1, b"fc6") + tag(7, 2) + varint(len(blob) + 4 * count) + blob
    content += tag(100, 2) + varint(len(layer) + 4 * count) + layer
    path.write_bytes(content)
    os.truncate(path, len(content) + 4 * count)  # a hole in the file, which reads as zeros
    open_model(path)
    tracemalloc.start()
    start = time.perf_counter()
    stored = open_model(path)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert only_blob(stored).values == count
    assert seconds < 0.1
    assert peak < 1 << 17


def test_listing_imports_no_numpy(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(model(shape(2, 3) + DATA_FORMS["packed"]))
    script = (
        "import sys; from inspector.caffemodel import open_weights; "
        f"b = open_weights({str(path)!r}).layers[0].blobs[0]; print(b.shape, b.count, b.values, 'numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "(2, 3) 6 6 False\n"


def test_values_come_from_the_file_that_was_opened(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(model(shape(2, 3) + DATA_FORMS["packed"]))
    blob = only_blob(open_model(path))
    other = tmp_path / "b.caffemodel"
    other.write_bytes(model(shape(2, 3) + sub(5, floats([8.0] * 6))))
    other.replace(path)
    assert bits(blob.read()) == floats(VALUES)


def test_a_file_that_became_shorter(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(model(shape(2, 3) + DATA_FORMS["packed"]))
    blob = only_blob(open_model(path))
    os.truncate(path, 30)
    with pytest.raises(UnreadableError, match="became shorter"):
        blob.read()


# ---- damage

FILE = model(shape(2, 3) + DATA_FORMS["packed"], BLOB + (tag(6, 5) + floats([1.5])) * 6)


def test_a_file_cut_anywhere_is_refused(opened):
    """There is one layer, and before it is complete there is none: no cut leaves a smaller file that is whole."""
    assert len(opened(FILE).layers) == 1
    for length in range(len(FILE)):
        with pytest.raises(UnreadableError) as caught:
            opened(FILE[:length])
        assert "some.caffemodel" in str(caught.value)


def test_a_cut_says_where_and_what_was_expected(opened):
    with pytest.raises(UnreadableError) as caught:
        opened(FILE[:-1])
    assert caught.value.code == "truncated-file"
    assert caught.value.values["offset"] == 5  # of the layer, behind the net's name
    assert f"the file ends at byte {len(FILE) - 1}" in str(caught.value)


DAMAGE = {
    "length past the end of its layer": (
        sub(100, sub(1, b"a"), tag(7, 2) + varint(40)) + bytes(60),
        "truncated-file|corrupt-file",
        "expected",
    ),
    "length that overflows": (tag(100, 2) + varint(2**64 - 1), "truncated-file", "for field 100"),
    "layer as a number": (number(100, 5), "corrupt-file", "wire type 0"),
    "name as a number": (number(1, 5), "corrupt-file", "a mean file or a solver's state"),
    "name as four bytes": (tag(1, 5) + bytes(4), "corrupt-file", "the net's name"),
    "layer's name as four bytes": (sub(100, tag(1, 5) + b"abcd"), "corrupt-file", "a name"),
    "V1 type as text": (sub(2, sub(5, b"CONVOLUTION")), "corrupt-file", "a layer's type"),
    "blob as a number": (sub(100, number(7, 3)), "corrupt-file", "a blob"),
    "shape as a number": (model(number(7, 3)), "corrupt-file", "shape"),
    "size as four bytes": (model(sub(7, tag(1, 5) + b"abcd")), "corrupt-file", "sizes"),
    "num as text": (model(sub(1, b"abc")), "corrupt-file", "num"),
    "float data as eight bytes": (model(tag(5, 1) + bytes(8)), "corrupt-file", "data"),
    "double data as four bytes": (model(tag(8, 5) + bytes(4)), "corrupt-file", "double_data"),
    "half a float": (model(sub(5, bytes(6))), "corrupt-file", "6 bytes"),
    "half a double": (model(sub(8, bytes(12))), "corrupt-file", "12 bytes"),
    "raw data of no type": (model(shape(1) + sub(12, bytes(4))), "corrupt-file", "raw"),
    "negative size": (model(shape(2, -3)), "negative-size", "2 x -3"),
    "negative legacy size": (model(number(1, -1) + number(4, 3)), "negative-size", "-1 x 0 x 0 x 3"),
    "too many elements": (model(shape(65536, 65536)), "blob-too-large", "65536 x 65536"),
    "size beyond 64 bits": (model(shape(2**62, 2)), "blob-too-large", "2147483647"),
    "33 axes": (model(shape(*[1] * 33)), "corrupt-file", "32 axes"),
    "fewer diffs": (model(shape(2, 3) + DATA_FORMS["packed"] + sub(6, floats([1.0]))), "corrupt-file", "diff"),
    "group": (sub(100, tag(9, 3) + tag(9, 4)), "corrupt-file", "group"),
    "end of a group": (sub(1, b"n") + tag(9, 4), "corrupt-file", "group"),
    "wire type 6": (sub(1, b"n") + tag(9, 6), "corrupt-file", "wire type 6"),
    "field 0": (sub(1, b"n") + b"\x02\x01a", "corrupt-file", "field number 0"),
    "zeros after the name": (sub(1, b"n") + bytes(100), "corrupt-file", "never written completely"),
    "varint of eleven bytes": (sub(1, b"n") + tag(8, 0) + b"\x80" * 10 + b"\x01", "corrupt-file", "10 bytes"),
    "tag of eleven bytes": (sub(1, b"n") + b"\x82" + b"\x80" * 9 + b"\x01", "corrupt-file", "10 bytes"),
    "no layer": (sub(1, b"only a name"), "corrupt-file", "no file of weights"),
    "settings that are no message": (sub(100, sub(1, b"a"), sub(106, b"\x08"), sub(3, b"data")), "corrupt-file", "varint"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_one_error_with_a_place(opened, what):
    content, code, words = DAMAGE[what]
    with pytest.raises(UnreadableError) as caught:
        opened(content)
    assert caught.value.code in code.split("|")
    assert words in str(caught.value)
    assert "byte " in str(caught.value)
    assert 0 <= caught.value.values["offset"] <= len(content)


NO_NET = {
    "layers": sub(100) * 3_000_000,
    "blobs": sub(100, sub(7) * 2_000_000),
    "bottoms": sub(100, sub(3) * 3_000_000),
    "empty pieces": model(shape(1) + sub(5) * 3_000_000),
    "single values": model(shape(1) + (tag(5, 5) + bytes(4) + number(1, 1)) * 1_000_000),
    "settings": sub(100, sub(143, sub(1) * 4_500_000)),
    "name": sub(1, b"n" * 12_000_000),
}


@pytest.mark.parametrize("what", NO_NET)
def test_what_no_net_has_is_refused_soon(opened, what):
    start = time.process_time()
    with pytest.raises(UnreadableError, match=r"which no net has|expected a name"):
        opened(NO_NET[what])
    assert time.process_time() - start < 5


def test_what_no_net_has_takes_little_memory(tmp_path):
    for what in ("layers", "blobs", "settings"):
        (tmp_path / what).write_bytes(NO_NET[what])
    script = f"""if True:
        import resource, pathlib
        from inspector.caffemodel import open_weights
        from inspector.errors import UnreadableError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in pathlib.Path({str(tmp_path)!r}).iterdir():
            try:
                open_weights(path)
            except UnreadableError:
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000  # KiB, for files of 4 to 9 MB


def test_many_unpacked_values_are_no_burden(opened):
    blob = only_blob(opened(model(shape(4_000_000) + (tag(5, 5) + floats([2.5])) * 4_000_000)))
    assert blob.values == 4_000_000
    assert blob.read().sum(dtype=np.float64) == 10_000_000


def test_nesting_without_end(opened):
    stored = opened(sub(100, sub(1, b"a"), sub(999, b"\x0a" * 1000)))  # an unknown field is not looked into
    assert stored.layers[0].name == "a"


def test_other_messages_in_place_of_the_wanted(opened):
    mean = caffe_pb2.BlobProto(num=1, channels=3, height=2, width=4, data=range(24)).SerializeToString()
    state = caffe_pb2.SolverState(iter=7, learned_net="x.caffemodel").SerializeToString()
    assert opened(mean, open_blob).shape == (1, 3, 2, 4)
    assert opened(state, open_state).iter == 7
    for content, reader in ((mean, open_weights), (state, open_weights), (state, open_blob), (FILE, open_blob), (FILE, open_state)):
        with pytest.raises(UnreadableError, match="expected"):
            opened(content, reader)


def test_no_files(tmp_path, monkeypatch):
    missing, loop, pipe = tmp_path / "missing", tmp_path / "loop", tmp_path / "pipe"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
    server.bind("socket")
    for path in (missing, loop, pipe, tmp_path, Path("/dev/null"), Path("/dev/zero"), "with\0nul", tmp_path / "socket"):
        for reader in (open_weights, open_model, open_state, open_blob):
            with pytest.raises(UnreadableError):
                reader(path)
    server.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(FILE)
    path.chmod(0)
    with pytest.raises(UnreadableError, match="permission"):
        open_weights(path)


# ---- files that are something else

FOREIGN = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 243862418\n",
    "git-annex": b"/annex/objects/SHA256E-s243862418--4d7a.caffemodel\n",
    "empty": b"",
    "zero bytes": bytes(5000),
    "web page": b"<!DOCTYPE html>\n<html><head><title>404</title>",
    "web page ": b"\n  <HTML lang=en>",
    "server's error": b"404: Not Found",
    "zip": b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(40) + b"readme.txt",
    "PyTorch": b"PK\x03\x04\x00\x00\x08\x08" + bytes(22) + b"archive/data.pklFB",
    "NumPy archive": b"PK\x03\x04\x14\x00\x00\x00\x00\x00" + bytes(20) + b"arr_0.npy",
    "NumPy array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\x00\x00\x04",
    "zstd": b"\x28\xb5\x2f\xfd\x04",
    "tar": b"weights/".ljust(257, b"\0") + b"ustar  \0",
    "7z": b"7z\xbc\xaf\x27\x1c\x00\x04",
    "ONNX": number(1, 8) + sub(2, b"pytorch") + sub(3, b"2.1.0") + sub(7, b"\x0a\x03abc" * 9),
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "PyTorch ": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02",
    "pickle": b"\x80\x04\x95\x10\x00",
    "TensorFlow graph": sub(1, sub(1, b"input"), sub(2, b"Placeholder")),
    "TensorFlow Lite": b"\x1c\x00\x00\x00TFL3",
    "safetensors": struct.pack("<Q", 60) + b'{"__metadata__":{}}',
    "LMDB": bytes(16) + b"\xde\xc0\xef\xbe",
    "UTF-16": "name: 'net'".encode("utf-16"),
    "text, as a prototxt": b'name: "net"\nlayer { name: "a" }\n',
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_named(opened, what):
    for reader in (open_weights, open_state, open_blob):
        with pytest.raises(UnreadableError) as caught:
            opened(FOREIGN[what], reader)
        assert caught.value.code == "foreign-file"
        assert what.strip() in str(caught.value)


def test_nothing_of_caffes_is_taken_for_foreign(reference):
    for pattern in ("*.caffemodel", "*.solverstate", "*.binaryproto", "*.prototxt"):
        for path in every_file(reference, pattern):
            with path.open("rb") as file:
                assert path.stat().st_size == 0 or foreign.recognise(file.read(foreign.HEAD), path.stat().st_size) is None, path
    assert foreign.recognise(FILE, len(FILE)) is None


# ---- HDF5


def test_hdf5_without_h5py(tmp_path, monkeypatch):
    path = tmp_path / "a.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file.create_group("data")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra) as caught:
        open_weights(path)
    assert 'pip install "alexinspect[hdf5]"' in str(caught.value)


def test_hdf5_is_recognised_by_content(tmp_path):
    path = tmp_path / "weights.caffemodel"
    with h5py.File(path, "w") as file:
        file["data/ip/1"] = np.arange(3, dtype=np.float64)
        file["data/ip/10"] = np.arange(2, dtype=np.float32)
        file["data/ip/2"] = np.full((2, 5), 4, np.int32)
        file["diff/ip/1"] = np.full(3, 0.5, np.float32)
    blobs = open_weights(path).layers[0].blobs
    assert [(blob.index, blob.shape, blob.has_diff) for blob in blobs] == [(1, (3,), True), (2, (2, 5), False), (10, (2,), False)]
    assert blobs[0].read().tolist() == [0, 1, 2]
    assert blobs[0].diff().tolist() == [0.5] * 3
    assert blobs[1].read().tolist() == [[4] * 5] * 2
    assert blobs[0].read().dtype == np.float32


def break_hdf5(file: h5py.File, what: str) -> None:
    if what == "no data":
        file.create_group("model_weights")
    elif what == "data is a dataset":
        file["data"] = [1.0]
    elif what == "layer is a dataset":
        file["data/ip"] = [1.0]
    elif what == "blob is a group":
        file.create_group("data/ip/0")
    elif what == "text":
        file["data/ip/0"] = "text"
    elif what == "external link":
        file.create_group("data")["ip"] = h5py.ExternalLink("/etc/passwd", "/")
    elif what == "soft link in a circle":
        file.create_group("data")["ip"] = h5py.SoftLink("/data/ip")
    elif what == "external storage":
        file.create_group("data/ip").create_dataset("0", (4,), "f4", external=[("/etc/hostname", 0, 16)])
    elif what == "huge and empty":
        file.create_group("data/ip").create_dataset("0", (1 << 15, 1 << 15), "f4", chunks=(64, 64))
    elif what == "beyond 2^31":
        file.create_group("data/ip").create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))


@pytest.mark.parametrize(
    "what",
    [
        "no data",
        "data is a dataset",
        "layer is a dataset",
        "blob is a group",
        "text",
        "external link",
        "soft link in a circle",
        "external storage",
        "huge and empty",
        "beyond 2^31",
    ],
)
def test_hdf5_of_another_kind(tmp_path, what):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        break_hdf5(file, what)
    with pytest.raises(UnreadableError):
        open_weights(path)
    with pytest.raises(UnreadableError):
        open_state(path)


def test_hdf5_cut_short(tmp_path):
    path = tmp_path / "a.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.arange(3000, dtype=np.float32)
    content = path.read_bytes()
    for length in range(8, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(UnreadableError):
            open_weights(path)


# ---- writing


def net(*names: str) -> caffe_pb2.NetParameter:
    proto = caffe_pb2.NetParameter(name="written")
    for name in names:
        layer = proto.layer.add(name=name, type="InnerProduct", bottom=["data"], top=[name])
        layer.inner_product_param.num_output = 3
    return proto


ARRAYS = {
    "ip/1": [np.arange(300, dtype=np.float32).reshape(3, 100), np.array([1.5, np.inf, -0.0], np.float32)],
    "odd": [np.float32(7).reshape(()), np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1), np.zeros((0, 5), np.float32)],
}


def test_what_is_written_protobuf_reads(tmp_path):
    path = tmp_path / "a.caffemodel"
    proto = net("ip/1", "odd", "none")
    proto.layer[1].blobs.add(data=[1, 2, 3])  # not ours to write
    write_model(path, proto, ARRAYS)
    full = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert [list(layer.bottom) for layer in full.layer] == [["data"]] * 3
    stored = open_weights(path)
    for layer, mine in zip(full.layer, stored.layers, strict=True):
        arrays = ARRAYS.get(layer.name, [])
        assert len(layer.blobs) == len(mine.blobs) == len(arrays)
        for blob, my_blob, array in zip(layer.blobs, mine.blobs, arrays, strict=True):
            assert tuple(blob.shape.dim) == array.shape == my_blob.shape
            assert bits(np.array(blob.data)) == bits(array) == bits(my_blob.read())
        del layer.blobs[:]
    assert full == net("ip/1", "odd", "none")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.caffemodel"]


def test_real_files_written_again_are_the_same(reference, tmp_path):
    for path in every_file(reference / "models", "*.caffemodel"):
        stored = open_weights(path)
        full = caffe_pb2.NetParameter.FromString(path.read_bytes())
        if full.layers or any(blob.legacy for layer in stored.layers for blob in layer.blobs):
            continue
        copy = tmp_path / "copy.caffemodel"
        write_model(copy, stored.proto, {layer.name: layer.blobs for layer in stored.layers})
        for layer in full.layer:
            for blob in layer.blobs:
                del blob.diff[:]
        assert caffe_pb2.NetParameter.FromString(copy.read_bytes()) == full


def test_a_file_may_be_written_over_itself(tmp_path):
    path = tmp_path / "a.caffemodel"
    write_model(path, net("ip"), {"ip": [np.arange(5, dtype=np.float32)]})
    stored = open_weights(path)
    write_model(path, stored.proto, {"ip": stored.layers[0].blobs})
    assert only_blob(open_weights(path)).read().tolist() == [0, 1, 2, 3, 4]


def test_writing_hdf5(tmp_path, reference):
    path = tmp_path / "a.caffemodel.h5"
    write_model(path, net("ip", "empty"), {"ip": [ARRAYS["ip/1"][0], None, ARRAYS["odd"][1]]})
    stored = open_weights(path)
    assert [(layer.name, [blob.index for blob in layer.blobs]) for layer in stored.layers] == [("empty", []), ("ip", [0, 2])]
    assert bits(stored.layers[1].blobs[1].read()) == bits(ARRAYS["odd"][1])
    for bad in ("a/b", ""):
        with pytest.raises(InspectorError) as caught:
            write_model(path, net("x", bad), {})
        assert caught.value.code == "hdf5-layer-name"
    with h5py.File(every_file(reference / "training", "*.caffemodel.h5")[0], "r") as real, h5py.File(path, "r") as mine:
        assert mine["data/ip/0"].dtype == real["data/ip1/0"].dtype
        assert mine["data/ip/0"].chunks is real["data/ip1/0"].chunks is None


@pytest.mark.parametrize("suffix", ["solverstate", "solverstate.h5"])
def test_writing_solver_states(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    history = ARRAYS["ip/1"] * 6
    write_state(path, iteration=300, learned_net="a_iter_300.caffemodel", current_step=2, history=history)
    state = open_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (300, "a_iter_300.caffemodel", 2)
    assert [bits(blob.read()) for blob in state.history] == [bits(array) for array in history]
    if suffix == "solverstate":
        full = caffe_pb2.SolverState.FromString(path.read_bytes())
        assert (full.iter, full.current_step, len(full.history)) == (300, 2, 12)


def test_written_hdf5_state_has_the_layout_of_a_real_one(tmp_path, reference):
    path = tmp_path / "a.solverstate.h5"
    write_state(path, iteration=3, learned_net="x", current_step=1, history=[np.zeros((2, 3), np.float32)])
    with h5py.File(every_file(reference, "*.solverstate.h5")[0], "r") as real, h5py.File(path, "r") as mine:
        assert list(mine) == list(real)
        for name in ("iter", "current_step", "history/0"):
            assert mine[name].dtype == real[name].dtype
        assert mine["iter"].shape == real["iter"].shape
        assert mine["learned_net"].shape == real["learned_net"].shape
        kind = mine["learned_net"].id.get_type()
        assert (kind.is_variable_str(), kind.get_size()) == (False, 2)  # a character and the zero that ends it


def test_trouble_while_writing(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"old")
    with pytest.raises(InspectorError) as caught:
        write_model(path, net("ip"), {"other": []})
    assert caught.value.code == "no-such-layer"
    with pytest.raises(InspectorError):
        write_model(path, net("ip"), {"ip": [None]})
    for nowhere in (tmp_path / "no" / "folder.caffemodel", tmp_path, tmp_path / "no" / "folder.h5"):
        with pytest.raises(InspectorError):
            write_model(nowhere, net("ip"), {})
    broken = tmp_path / "broken.caffemodel"
    broken.write_bytes(model(shape(2, 3) + sub(5, floats([1.0]))))
    with pytest.raises(UnreadableError):
        write_model(path, net("ip"), {"ip": open_weights(broken).layers[0].blobs})
    assert path.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.caffemodel", "broken.caffemodel"]


def test_more_than_protobuf_can_read(tmp_path):
    array = np.broadcast_to(np.float32(0), (1 << 15, 1 << 14))
    with pytest.raises(InspectorError) as caught:
        write_model(tmp_path / "a.caffemodel", net("ip"), {"ip": [array] * 2})
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("name", ["a.caffemodel", "a.caffemodel.h5"])
def test_a_full_disk(tmp_path, name):
    """A limit on file size stands for the disk: the write fails half-way in the same manner."""
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        import h5py, numpy as np
        from caffe_proto import caffe_pb2
        from inspector.caffemodel import write_model
        from inspector.errors import InspectorError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        net = caffe_pb2.NetParameter()
        net.layer.add(name="ip")
        try:
            write_model({str(tmp_path / name)!r}, net, {{"ip": [np.ones(100_000, np.float32)]}})
        except InspectorError as error:
            print("refused:", error)
        """
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("refused: cannot write")
    assert list(tmp_path.iterdir()) == []


def test_limits_are_far_above_real_nets(reference):
    largest = max(every_file(reference, "*.caffemodel"), key=lambda path: len(open_weights(path).layers))
    assert len(open_weights(largest).layers) * 100 < caffemodel.MAX_LAYERS
