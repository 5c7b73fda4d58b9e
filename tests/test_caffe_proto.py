"""caffe_proto: the schema says what BVLC's says, the compiled files belong to it, and the classes get along with others."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import caffe_proto
from caffe_proto import caffe_pb2

PACKAGE = Path(caffe_proto.__file__).parent
ROOT = PACKAGE.parent


def descriptor_set(path: Path) -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------------------- compiled files


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the schema compiled just now."""
    pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    from caffe_proto.compile import compile_schema

    folder = tmp_path_factory.mktemp("compiled")
    compile_schema(folder)
    return folder


def test_descriptor_is_that_of_the_schema(compiled: Path) -> None:
    assert descriptor_set(PACKAGE / "caffe.desc") == descriptor_set(compiled / "caffe.desc"), "run python -m caffe_proto.compile"


def test_types_are_those_of_the_schema(compiled: Path) -> None:
    assert (PACKAGE / "caffe_pb2.pyi").read_text() == (compiled / "caffe_pb2.pyi").read_text(), "run python -m caffe_proto.compile"


def test_descriptor_is_one_file_without_source_info() -> None:
    (file,) = descriptor_set(PACKAGE / "caffe.desc").file
    assert not file.HasField("source_code_info")
    assert {message.name for message in file.message_type} == set(caffe_pb2.DESCRIPTOR.message_types_by_name)


def test_every_message_has_a_comment() -> None:
    lines = (PACKAGE / "caffe.proto").read_text().splitlines()
    bare = [line for before, line in pairwise(lines) if line.startswith("message ") and not before.startswith("//")]
    assert bare == []


# ---------------------------------------------------------------------------------------------------------- BVLC's facts


def field_facts(field: descriptor_pb2.FieldDescriptorProto) -> dict[str, Any]:
    """A field in the words of the reference: only what is set is a key."""
    kinds = descriptor_pb2.FieldDescriptorProto
    facts: dict[str, Any] = {
        "name": field.name,
        "number": field.number,
        "label": kinds.Label.Name(field.label).removeprefix("LABEL_").lower(),
        "type": field.type_name.removeprefix(".") or kinds.Type.Name(field.type).removeprefix("TYPE_").lower(),
    }
    if field.HasField("default_value"):
        facts["default"] = field.default_value
    if field.options.HasField("packed"):
        facts["packed"] = field.options.packed
    return facts


def enum_facts(enum: descriptor_pb2.EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def test_schema_is_bvlcs(reference: Path) -> None:
    expected = json.loads((reference / "schema" / "bvlc.json").read_text())
    (file,) = descriptor_set(PACKAGE / "caffe.desc").file
    messages = {message.name: {field.name: field_facts(field) for field in message.field} for message in file.message_type}
    enums = {enum.name: enum_facts(enum) for enum in file.enum_type}
    for message in file.message_type:
        enums |= {f"{message.name}.{enum.name}": enum_facts(enum) for enum in message.enum_type}
        assert not message.nested_type
        assert not message.extension

    assert (file.package, file.syntax or "proto2") == (expected["package"], expected["syntax"])
    assert enums == expected["enums"]
    assert messages.keys() == expected["messages"].keys()
    for name, fields in expected["messages"].items():
        assert messages[name] == {field["name"]: field for field in fields}, name
    assert (len(messages), sum(map(len, messages.values())), len(enums)) == (63, 423, 26)


# --------------------------------------------------------------------------------------------------------------- classes


def a_net() -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(name="net", input=["data"], input_shape=[caffe_pb2.BlobShape(dim=[2, 3, 5, 7])])
    net.state.phase = caffe_pb2.TRAIN
    net.layer.add(name="pool", type="Pooling", bottom=["data"], top=["pool"])
    net.layer[0].pooling_param.pool = caffe_pb2.PoolingParameter.AVE
    net.layer[0].blobs.add(data=[0.5, -1.25])
    net.layers.add(type=caffe_pb2.V1LayerParameter.CONVOLUTION).layer.kernelsize = 3
    return net


def test_round_trip() -> None:
    net = a_net()
    assert caffe_pb2.NetParameter.FromString(net.SerializeToString()) == net
    assert copy.deepcopy(net) == net
    assert pickle.loads(pickle.dumps(net)) == net
    assert pickle.loads(pickle.dumps(net.layer[0])) == net.layer[0]


def test_bytes_are_the_wire_format() -> None:
    """Written out by hand from the protobuf encoding: tag = number * 8 + wire type."""
    layer = b"\x0a\x01c" + b"\x12\x04ReLU" + b"\xda\x07\x05" + b"\x0d\x00\x00\x00\x3f"  # relu_param is 123, negative_slope 0.5
    net = caffe_pb2.NetParameter.FromString(b"\x0a\x01n" + b"\xa2\x06" + bytes([len(layer)]) + layer)  # layer is 100
    assert (net.name, net.layer[0].name, net.layer[0].type) == ("n", "c", "ReLU")
    assert net.layer[0].relu_param.negative_slope == 0.5
    assert caffe_pb2.BlobShape(dim=[3, 300]).SerializeToString() == b"\x0a\x03\x03\xac\x02"  # packed


def test_defaults() -> None:
    layer = caffe_pb2.LayerParameter()
    assert (layer.convolution_param.group, layer.convolution_param.bias_term) == (1, True)
    assert layer.lrn_param.beta == 0.75
    assert layer.batch_norm_param.moving_average_fraction == pytest.approx(0.999)
    assert not layer.HasField("lrn_param")
    assert caffe_pb2.NetState().phase == caffe_pb2.TEST
    assert caffe_pb2.SolverParameter().snapshot_format == caffe_pb2.SolverParameter.BINARYPROTO


def test_enums_by_name() -> None:
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST, caffe_pb2.Phase.Name(1)) == (0, 1, "TEST")
    assert (caffe_pb2.PoolingParameter.MAX, caffe_pb2.PoolingParameter.PoolMethod.Value("STOCHASTIC")) == (0, 2)
    assert caffe_pb2.V1LayerParameter.LayerType.Name(39) == "DECONVOLUTION"


def test_classes_know_where_they_live() -> None:
    layer_class = type(a_net().layer[0])
    assert layer_class is caffe_pb2.LayerParameter
    assert (layer_class.__module__, layer_class.__qualname__) == ("caffe_proto.caffe_pb2", "LayerParameter")


# ------------------------------------------------------------------------------------------------ beside other libraries


@pytest.mark.parametrize("ours_first", [False, True], ids=["theirs-first", "ours-first"])
@pytest.mark.parametrize("implementation", ["", "python"], ids=["default", "pure-python"])
def test_another_package_caffe_is_no_conflict(ours_first: bool, implementation: str) -> None:
    """A file of the same name with a different caffe.NetParameter is in the default pool."""
    theirs = """
        from google.protobuf import descriptor_pb2, descriptor_pool, symbol_database
        file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
        message = file.message_type.add(name="NetParameter")
        message.field.add(name="name", number=7, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32, label=1)
        other = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
        """
    ours = """
        from caffe_proto import caffe_pb2
        """
    check = """
        net = caffe_pb2.NetParameter.FromString(b"\\x0a\\x03net")
        found = descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter")
        assert [field.number for field in found.fields] == [7], found.fields
        assert caffe_pb2.NetParameter.DESCRIPTOR.file.pool is caffe_pb2.pool is not descriptor_pool.Default()
        print(net.name)
        """
    parts = [ours, theirs] if ours_first else [theirs, ours]
    environment = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation} if implementation else {}
    assert run("".join(map(textwrap.dedent, [*parts, check])), **environment) == "net"


def test_import_brings_in_little() -> None:
    """Start-up: no arrays, no terminal, no protoc; with the C runtime not the pure Python one either."""
    out = run("""
        import sys
        from caffe_proto import caffe_pb2
        from google.protobuf.internal import api_implementation
        heavy = {"numpy", "rich", "click", "grpc_tools", "inspector", "cli"}
        if api_implementation.Type() == "upb":
            heavy |= {"google.protobuf.internal.python_message", "google.protobuf.text_format"}
        print(sorted(heavy & sys.modules.keys()))
        """)
    assert out == "[]"


def test_loads_from_a_zip_file(tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("__init__.py", "caffe_pb2.py", "caffe.desc"):
            file.write(PACKAGE / name, f"caffe_proto/{name}")
    code = f"import sys; sys.path.insert(0, {str(archive)!r}); from caffe_proto import caffe_pb2 as c; print(c.__file__, c.TEST)"
    assert run(code).startswith(str(archive))
