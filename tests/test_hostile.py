"""Files made to harm: one error or finding each, no traceback, soon, and in little memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import inspector
from inspector import check
from inspector.errors import Finding, InspectorError, PrototxtError

from .conftest import ROOT

SOON = 5.0  # seconds of computing
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 } } } '


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SOON


def findings(text: str | bytes, phase: str = "TEST") -> list[Finding]:
    try:
        return check.check(inspector.loads(text, phase))
    except PrototxtError as error:
        return check.unread(error)


def errors(text: str | bytes) -> list[str]:
    return [finding.code for finding in findings(text) if finding.severity == "error"]


# ---- texts


@pytest.mark.parametrize("opener", ["layer {", "a <", "a: [", "input_shape { a {", "layer { convolution_param { weight_filler {"])
def test_nesting_without_end(opener: str) -> None:
    assert errors(opener * 15_000)[-1] in ("too-deep", "syntax-error", "unclosed")


MILLIONS = {
    "layers in place": INPUT + 'layer{name:"a" type:"ReLU" bottom:"data" top:"data"}\n' * 10**6,
    "empty layers": "layer{}" * 10**6,
    "old layers": "layers:<>" * 10**6,
    "listed layers": "layer: [" + "{}," * 400_000 + "{}]",
    "bottoms": 'layer { type: "Concat" ' + 'bottom:"x"' * 150_000 + ' top: "y" }',
}


@pytest.mark.parametrize("what", MILLIONS)
def test_a_million_layers_are_refused_before_they_cost(what: str) -> None:
    text = MILLIONS[what].encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InspectorError) as caught:
        inspector.loads(text)
    assert caught.value.code == "too-large"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 10 * len(text) + (50 << 20)


MANY = {
    "of unknown bottoms": lambda i: f'layer {{ name: "l{i}" type: "ReLU" bottom: "b{i}" top: "c{i}" }}',
    "of unknown types": lambda i: f'layer {{ name: "l{i}" type: "Nonsense{i}" top: "c{i}" }}',
    "that make the same blob": lambda i: f'layer {{ name: "l{i}" type: "ReLU" bottom: "data" top: "y" }}',
    "in place on each other": lambda i: f'layer {{ name: "l{i}" type: "Sigmoid" bottom: "data" top: "data" }}',
    "that share a parameter": lambda i: f'layer {{ name: "l{i}" type: "PReLU" bottom: "data" top: "c{i}" param {{ name: "w" }} }}',
    "with unknown fields": lambda i: f'layer {{ name: "l{i}" type: "ReLU" bottom: "data" top: "c{i}" relu_parm {{ x{i}: 1 }} }}',
}


@pytest.mark.parametrize("what", MANY)
def test_many_layers(what: str) -> None:
    """As many as a large net has, wrong in every line: the time grows with their number, not with its square."""
    times = []
    for many in (1000, 4000):
        text = INPUT + "\n".join(map(MANY[what], range(many)))
        start = time.process_time()
        found = findings(text, "TRAIN")
        times.append(time.process_time() - start)
        assert len(found) >= (0 if "share" in what or "place" in what else many - 1)
    assert times[1] < 10 * times[0] + 0.5


def test_cycles_by_name() -> None:
    text = 'layer { name: "a" type: "ReLU" bottom: "y" top: "x" } layer { name: "b" type: "ReLU" bottom: "x" top: "y" }'
    assert errors(text) == ["unknown-bottom"]
    assert errors('layer { name: "a" type: "ReLU" bottom: "a" top: "a" }') == ["unknown-bottom"]


@pytest.mark.parametrize(
    ("dims", "code"),
    [
        ("dim: 65536 dim: 65536", "blob-too-large"),
        ("dim: 9223372036854775807", "blob-too-large"),
        ("dim: 9223372036854775808", "out-of-range"),
        ("dim: -1 dim: 3", "negative-size"),
        ("dim: -9223372036854775808", "negative-size"),
        ("dim: 2 " * 40, "too-many-axes"),
        ("dim: " + "9" * 100_000, "out-of-range"),
        ("dim: 0x" + "f" * 100_000, "out-of-range"),
    ],
    ids=lambda value: value[:24],
)
def test_sizes(dims: str, code: str) -> None:
    assert errors(f'layer {{ name: "d" type: "Input" top: "d" input_param {{ shape {{ {dims} }} }} }}') == [code]


@pytest.mark.parametrize("size", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("setting", ["kernel_size", "stride", "pad", "dilation", "num_output", "group"])
def test_settings_at_the_edge_of_their_type(setting: str, size: int) -> None:
    usual = {"num_output": 4, "kernel_size": 3, setting: size}
    param = " ".join(f"{name}: {value}" for name, value in usual.items())
    layer = f'layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {{ {param} }} }}'
    assert len(errors(INPUT + layer)) <= 1


def test_a_blob_without_elements_goes_through() -> None:
    text = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 0 dim: 3 } } }'
    assert errors(text + 'layer { name: "r" type: "ReLU" bottom: "d" top: "r" }') == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'name: "a\x00b"', "not-text"),
        (b"\x00" * 1000, "not-text"),
        (b'name: "caf\xe9"', None),  # Latin-1: a warning
        (b'name: "\xff\xfe\xfd"', None),
        ('name: "a"'.encode("utf-16"), "not-text"),
        (b'name: "unclosed', "syntax-error"),
        (b'name: "a\nb"', "syntax-error"),
        (b"#" * 10**6, None),
        (b"\xef\xbb\xbf" * 3, "syntax-error"),
    ],
)
def test_bytes_that_are_no_text(text: bytes, code: str | None) -> None:
    found = errors(text)
    assert (found[-1] if found else None) == code


def test_names_of_any_length_and_kind() -> None:
    name = "n" * 10**6
    text = INPUT + f'layer {{ name: "{name}" type: "{name}" bottom: "{name}" top: "{name}" }}'
    assert sorted(errors(text)) == ["unknown-bottom", "unknown-layer-type"]
    assert errors(INPUT + 'layer { name: "\\033[31m\\n" type: "\\007" bottom: "data" top: "a" }') == ["unknown-layer-type"]


# ---- what is no file


def run(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "inspector", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, cwd=cwd, env=environment, check=False)


def test_folders_devices_and_loops(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "loop", tmp_path / "dangling", Path("/dev/zero"), Path("/dev/null"), Path("/proc/self/mem")):
        with pytest.raises(InspectorError) as caught:
            inspector.load(path)
        assert str(path) in str(caught.value)


def test_a_pipe_is_read_and_a_silent_one_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.files.PIPE_PATIENCE", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(INPUT,))
    writer.start()
    try:
        time.sleep(0.1)  # a pipe that nobody writes to is at its end
        assert inspector.load(pipe).blobs["data"].shape == (2, 3, 8, 9)
    finally:
        writer.join()
    keep = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(InspectorError, match="nothing came"):
            inspector.load(pipe)
    finally:
        os.close(keep)


SOURCES: dict[str, Callable[[Path], str]] = {
    "a device": lambda folder: "/dev/zero",
    "a folder": str,
    "a loop": lambda folder: str(folder / "loop"),
    "NULs": lambda folder: "a\\000b",
    "a long name": lambda folder: "a" * 100_000,
}


@pytest.mark.parametrize("what", SOURCES)
@pytest.mark.parametrize("kind", ["Data", "ImageData", "HDF5Data", "WindowData"])
def test_sources_that_are_no_sources(what: str, kind: str, tmp_path: Path) -> None:
    """What a prototxt names is not read for the asking."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    param = {
        "Data": "data_param",
        "ImageData": "image_data_param",
        "HDF5Data": "hdf5_data_param",
        "WindowData": "window_data_param",
    }[kind]
    text = f'layer {{ name: "d" type: "{kind}" top: "d" top: "l" {param} {{ source: "{SOURCES[what](tmp_path)}" batch_size: 2 }} }}'
    for phase in ("TRAIN", "TEST"):
        for finding in findings(text, phase):
            assert finding.severity != "error" or finding.code in ("window-crop", "corrupt-file", "broken-source", "file")


def test_a_solver_that_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "solver.prototxt" base_lr: 0.1 lr_policy: "fixed"')
    with pytest.raises(InspectorError):
        inspector.load(path)
    other = tmp_path / "other.prototxt"
    path.write_text('net: "other.prototxt" base_lr: 0.1')
    other.write_text('net: "solver.prototxt" base_lr: 0.1')
    with pytest.raises(InspectorError):
        inspector.load(path)


def test_the_command_says_it_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for argument in (tmp_path, tmp_path / "loop", "/dev/zero", tmp_path / "missing.prototxt"):
        result = run("check", argument)
        assert result.returncode == 2
        assert result.stderr.startswith(b"alexinspect: error: ")
        assert b"Traceback" not in result.stderr
        assert not result.stdout
    result = run("check", "-", stdin=b"layer {" * 10_000)
    assert result.returncode == 1
    assert b"error[too-deep]" in result.stdout
    assert not result.stderr
