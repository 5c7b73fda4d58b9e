"""The command line: what it prints where, how it ends, and what it does not import."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import inspector
from caffe_proto import caffe_pb2
from cli import doctor as doctoring
from cli import show
from cli.main import COMMANDS, main
from inspector import shelf

ROOT = Path(__file__).resolve().parent.parent
LENET = (shelf.folder() / "lenet" / "deploy.prototxt").read_bytes()

OLD = """
name: "old"
input: "data" input_dim: 7 input_dim: 3 input_dim: 9 input_dim: 8
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
         convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
"""
REFUSED = OLD.replace("kernel_size: 3", "kernel_size: 30")
UNKNOWN = OLD.replace("num_output", "num_outputs: 2 num_output")


def run(*arguments: str, stdin: bytes | str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, env=environment or None)


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose output goes to pipes."""
    command = [sys.executable, "-m", "inspector", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command writes to a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    settings = {**plain, "TERM": "xterm", "PYTHONUTF8": "1", **environment}
    command = [sys.executable, "-m", "inspector", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=settings):
        os.close(theirs)
        pieces = []
        try:
            while piece := os.read(ours, 1 << 16):
                pieces.append(piece)
        except OSError:  # how Linux says that the other side is closed
            pass
    os.close(ours)
    return b"".join(pieces).decode()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(OLD)
    return path


# ---- the group


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_what_the_list_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert (command.help or "").partition("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]
    result = run(name, "--help")
    assert result.exit_code == 0
    assert COMMANDS[name][1].split()[0] in result.stdout


def test_the_version_costs_no_click_and_says_what_click_would() -> None:
    code = "import sys; sys.argv[1:] = ['--version']; from cli.entry import main; main(); assert 'click' not in sys.modules"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == CliRunner().invoke(main, ["--version"], prog_name="alexinspect").stdout


def test_help_imports_no_command() -> None:
    code = "import sys; from cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"  {name} " in answer.stdout for name in COMMANDS)
    loaded = set(answer.stderr.split())
    assert {target.partition(":")[0] for target, _ in COMMANDS.values()}.isdisjoint(loaded)


def test_a_summary_imports_neither_numpy_nor_rich() -> None:
    code = """
import sys
from cli.main import main
try:
    main(["summary", "lenet", *sys.argv[1:]])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    for arguments in ((), ("--format", "json"), ("--format", "csv"), ("--group",)):
        answer = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        assert "conv1" in answer.stdout or arguments == ("--group",)
        assert {"numpy", "rich", "PIL", "h5py", "google.protobuf.text_format"}.isdisjoint(answer.stderr.split())


def test_wrong_command_is_one_message() -> None:
    result = run("sumary")
    assert result.exit_code == 2
    assert result.stderr == "alexinspect: error: there is no command 'sumary'; did you mean 'summary'?\n"


# ---- plain data


def test_json_is_json_whatever_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"a": [0.12345678901234567] * 9 + [1e-05], "b": [], "c": {"d": (3, 4), 'e"\n': [[1, 2], ["ü"]]}, "f": [None, True, {}]}
    show.json({**data, "nan": float("nan"), "inf": [1.5, float("inf")]})
    text = capsys.readouterr().out
    assert json.loads(text) == {**json.loads(json.dumps(data)), "nan": None, "inf": [1.5, None]}
    assert '"d": [3, 4]' in text  # a shape on one line


# ---- exit statuses and streams


def test_exit_statuses(tmp_path: Path) -> None:
    for source, status in ((OLD, 0), (REFUSED, 1), (UNKNOWN, 1), ("layer { name: ", 2)):
        path = tmp_path / "net.prototxt"
        path.write_text(source)
        result = run("summary", str(path))
        assert result.exit_code == status, result.output
        assert bool(result.stderr) == bool(status)
        assert len(re.findall("^alexinspect: error: ", result.stderr, re.MULTILINE)) == bool(status)
    assert run("summary", str(tmp_path / "none.prototxt")).exit_code == 2
    assert run("summary", str(tmp_path)).exit_code == 2
    assert run("summary").exit_code == 2


def test_what_caffe_would_refuse_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(REFUSED)
    result = run("summary", str(path), "--format", "json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert [row["name"] for row in data["layers"]] == ["input"]
    assert data["error"]["layer"] == "conv"
    assert f"{path}:4:1" in result.stderr


def test_strict_stops_at_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(UNKNOWN)
    assert "conv" in run("summary", str(path)).stdout
    result = run("summary", str(path), "--strict")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "num_outputs" in result.stderr


def test_stdin() -> None:
    assert run("summary", "-", stdin=LENET).stdout == run("summary", "lenet").stdout
    result = run("summary", "-", stdin=b"layer { nonsense: }")
    assert result.exit_code == 2
    assert "<stdin>:1:" in result.stderr


def test_a_binary_net_through_stdin() -> None:
    proto = inspector.load("lenet").opened.proto
    for layer in proto.layer[1:3]:
        layer.blobs.add(data=[1.0, 2.0]).shape.dim.append(2)
    found = json.loads(run("summary", "-", "--format", "json", stdin=proto.SerializeToString()).stdout)
    assert found["totals"] == inspector.load("lenet").summary().to_dict()["totals"]


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["summary", "resnet152", "--columns", "all"], ["summary", "lenet", "--format", "csv"]]
)
def test_closed_pipes_are_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "inspector", *arguments]
    answer = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (answer.returncode, answer.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk as Linux imitates it")
@pytest.mark.parametrize("arguments", [["summary", "lenet"], ["draw", "lenet"], ["summary", "lenet", "--format", "csv"]])
def test_a_full_disk_is_trouble(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "inspector", *arguments]
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "alexinspect: error: cannot write the output: no space left on device; make room\n"
    assert (answer.returncode, answer.stderr) == (2, said)


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")
def test_ctrl_c_is_quiet() -> None:
    code = """
import os, signal, sys
sys.argv[0] = "alexinspect"
from cli import options
def interrupted(*_): signal.raise_signal(signal.SIGINT)
options.How.open = interrupted
from cli.main import main
main(["summary", "lenet"])
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.strip()) == (128 + signal.SIGINT, "")


def test_assumptions_are_said_on_stderr_and_in_the_output() -> None:
    result = run("summary", "alexnet/train_val", "--phase", "TRAIN")
    assert result.exit_code == 0
    assert "3 channel(s)" in result.stdout
    assert "3 channel(s)" in result.stderr
    result = run("summary", "alexnet/train_val", "--phase", "TRAIN", "--shape", "data=256x3x227x227", "--format", "json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["totals"]["memory"] == 2_129_727_492


@pytest.mark.parametrize("shape", ["data", "=3x4", "data=", "data=3xx4", "data=3x-4", "data=three"])
def test_wrong_shapes(shape: str) -> None:
    result = run("summary", "lenet", "--shape", shape)
    assert result.exit_code == 2
    assert "64x3x227x227" in result.stderr


def test_shapes_are_given_by_blob() -> None:
    result = run("summary", "lenet", "--shape", "data=5x1x28x28", "--format", "json")
    assert json.loads(result.stdout)["totals"]["batch"] == 5


# ---- colours and widths

ESCAPE = "\x1b["


def test_colours_are_for_terminals() -> None:
    assert ESCAPE not in run("summary", "lenet").stdout
    assert ESCAPE in run("summary", "lenet", "--color", "always").stdout
    assert ESCAPE in on_a_terminal("summary", "lenet")
    assert ESCAPE not in on_a_terminal("summary", "lenet", NO_COLOR="1")
    assert ESCAPE not in on_a_terminal("summary", "lenet", "--color", "never")
    assert ESCAPE in on_a_terminal("summary", "lenet", "--color", "always", NO_COLOR="1")
    assert ESCAPE not in on_a_terminal("summary", "lenet", TERM="dumb")


def test_errors_are_painted_on_a_terminal_only() -> None:
    assert ESCAPE in on_a_terminal("summary", "nonsense")
    assert ESCAPE not in on_a_terminal("summary", "nonsense", NO_COLOR="1")
    assert ESCAPE not in run("summary", "nonsense").stderr


def test_colours_change_nothing_else() -> None:
    for columns in ("60", "80", "160"):
        plain = run("summary", "googlenet", COLUMNS=columns).stdout
        painted = run("summary", "googlenet", "--color", "always", COLUMNS=columns).stdout
        assert re.sub(r"\x1b\[[\d;]*m", "", painted) == plain
        assert max(map(len, plain.splitlines())) <= int(columns)


def test_a_pipe_gets_one_line_per_layer() -> None:
    lines = process("summary", "googlenet").stdout.splitlines()
    assert sum(line.startswith("inception_3a/") for line in lines) == 14
    assert all(line.endswith("3,010,560") for line in lines if line.startswith("inception_3a/relu_3x3_reduce "))


def test_the_terminal_is_believed() -> None:
    narrow = on_a_terminal("summary", "googlenet", "--color", "never", COLUMNS="72").splitlines()
    assert max(map(len, narrow)) == 72


def test_names_cannot_steer_the_terminal() -> None:
    source = OLD.replace('"relu"', '"re\\033[2Jlu\\n"')
    for form in ("table", "markdown"):
        printed = run("summary", "-", "--format", form, stdin=source).stdout
        assert ESCAPE not in printed
        assert "re\\x1b[2Jlu\\n" in printed.replace("\\\\", "\\")


# ---- summary


def test_columns() -> None:
    rows = list(
        csv.DictReader(run("summary", "lenet", "--format", "csv", "--columns", "name,params,where,depth").stdout.splitlines())
    )
    by_name = {row["name"]: row for row in rows}
    assert by_name["conv2"]["params"] == "weights 50x20x5x5, biases 50"
    assert by_name["conv2"]["where"].startswith("lenet:")
    assert (by_name["prob"]["depth"], by_name["total"]["depth"]) == ("4", "4")
    result = run("summary", "lenet", "--columns", "name,colour")
    assert result.exit_code == 2
    assert "'colour'" in result.stderr
    assert run("summary", "lenet", "--columns", "all").exit_code == 0


def test_only() -> None:
    names = [row["name"] for row in json.loads(run("summary", "lenet", "--only", "conv*", "--format", "json").stdout)["layers"]]
    assert names == ["conv1", "conv2"]
    assert run("summary", "lenet", "--only", "none*").exit_code == 2


def test_several_models_are_compared() -> None:
    call = ("summary", "alexnet", "vgg16", "googlenet", "resnet50")
    rows = json.loads(run(*call, "--format", "json", "--sort", "parameters").stdout)
    assert [row["model"] for row in rows] == ["vgg16", "alexnet", "resnet50", "googlenet"]
    assert [row["depth"] for row in rows] == [16, 8, 50, 22]
    rows = json.loads(run(*call, "--format", "json", "--sort", "-macs_per_image").stdout)
    assert [row["model"] for row in rows] == ["alexnet", "googlenet", "resnet50", "vgg16"]
    assert rows[0]["macs_per_image"] == 724_406_816
    assert rows[0]["weights"] == 4 * 60_965_224
    table = run(*call).stdout.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["alexnet", "vgg16", "googlenet", "resnet50"]
    assert run(*call, "--sort", "beauty").exit_code == 2
    assert run(*call, "--format", "markdown").stdout.count("\n") == 2 + 4


def test_a_file_of_weights_belongs_to_the_model_before_it(reference: Path) -> None:
    folder = reference / "models" / "lenet_v2"
    weights = str(folder / "weights.caffemodel")
    stored = Path(weights).stat().st_size
    data = json.loads(run("summary", str(folder / "deploy.prototxt"), weights, "--format", "json").stdout)
    assert data["weights"] == {"file": weights, "bytes": stored}
    rows = json.loads(run("summary", "lenet", weights, "alexnet", "--format", "json").stdout)
    assert [row["model"] for row in rows] == ["lenet", "alexnet"]
    assert [row["weights"] for row in rows] == [stored, 4 * 60_965_224]
    assert json.loads(run("summary", weights, "--phase", "TRAIN", "--format", "json").stdout)["weights"] is None
    misfit = run("summary", "alexnet", weights)
    assert misfit.exit_code == 1
    assert "conv1" in misfit.stderr
    assert "60,965,224" in misfit.stdout


def test_models() -> None:
    rows = json.loads(run("models", "--format", "json").stdout)
    assert [row["name"] for row in rows] == shelf.names()
    caffenet = next(row for row in rows if row["name"] == "caffenet")
    assert caffenet["files"] == ["deploy", "train_val", "train_val_22"]
    assert caffenet["inputs"] == ["data 10x3x227x227"]
    assert all(name in run("models").stdout for name in shelf.names())


# ---- upgrade


def same(one: bytes | str, other: bytes | str) -> bool:
    """Whether two texts mean the same net."""
    nets = [inspector.loads(source) for source in (one, other)]
    facts = [[(row.name, row.type, row.tops, row.bottoms, row.weights) for row in net.summary().rows] for net in nets]
    return facts[0] == facts[1]


def test_upgrade_of_text(net: Path) -> None:
    out = net.with_name("new.prototxt")
    result = run("upgrade", str(net), str(out))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "second generation" in result.stderr
    assert "input fields" in result.stderr
    written = out.read_text()
    assert "layers" not in written
    assert "input_dim" not in written
    assert same(OLD, written)
    assert run("upgrade", str(out), "-").stdout == written
    assert "nothing to upgrade" in run("upgrade", str(out), str(out)).stderr
    assert out.read_text() == written
    assert {path.name for path in net.parent.iterdir()} == {"net.prototxt", "new.prototxt"}


def test_upgrade_through_pipes() -> None:
    assert same(OLD, run("upgrade", "-", "-", stdin=OLD).stdout)


def test_upgrade_of_a_binary_net_keeps_its_weights(tmp_path: Path) -> None:
    old = inspector.loads(OLD).opened.proto
    old.layers[0].blobs.add(num=4, channels=3, height=3, width=3, data=[0.5] * 108)
    source, target = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    source.write_bytes(old.SerializeToString())
    assert run("upgrade", str(source), str(target)).exit_code == 0
    new = caffe_pb2.NetParameter.FromString(target.read_bytes())
    assert [(layer.name, layer.type) for layer in new.layer] == [("input", "Input"), ("conv", "Convolution"), ("relu", "ReLU")]
    assert list(new.layer[1].blobs[0].data) == [0.5] * 108
    assert [param.lr_mult for param in new.layer[1].param] == [1, 2]


def test_upgrade_of_a_solver() -> None:
    result = run("upgrade", "-", "-", stdin='net: "net.prototxt" base_lr: 0.1 solver_type: ADAGRAD')
    assert (result.exit_code, result.stdout) == (0, 'base_lr: 0.1\nnet: "net.prototxt"\ntype: "AdaGrad"\n')  # by number
    assert run("upgrade", "-", "-", stdin='solver_type: SGD type: "SGD" base_lr: 1').exit_code == 2


@pytest.mark.parametrize(
    "source",
    [
        UNKNOWN,
        OLD + 'layer { name: "new" type: "ReLU" bottom: "conv" top: "conv" }',
        "layer {",
        "<html>",
        b"\x00\x01\x02",
        "\x89PNG\r\n",
    ],
)
def test_what_cannot_be_upgraded_leaves_the_target_alone(source: str | bytes, tmp_path: Path) -> None:
    target = tmp_path / "target.prototxt"
    target.write_text("precious")
    result = run("upgrade", "-", str(target), stdin=source)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("alexinspect: error: ")
    assert target.read_text() == "precious"


def test_upgrade_cannot_write(net: Path) -> None:
    for target in (net.parent / "no" / "folder", net.parent):
        assert run("upgrade", str(net), str(target)).exit_code == 2


# ---- doctor and completion


def test_doctor() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    data = json.loads(run("doctor", "--format", "json").stdout)
    facts = {fact["name"]: fact for fact in data["facts"]}
    assert data["ok"] is True
    assert facts["alexinspect"]["value"].startswith(inspector.__version__)
    assert facts["packages"]["status"] == "ok"
    assert set(doctoring.REQUIRED) <= set(facts)
    assert {f"extra {extra}" for extra in doctoring.EXTRAS} <= set(facts)


def test_doctor_knows_every_extra() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctoring.EXTRAS) == set(extras) - {"all"}
    for extra, needs in doctoring.EXTRAS.items():
        named = {re.split(r"[><=;]", need)[0].lower() for need in extras[extra]}
        assert named == {distribution for choices in needs for distribution, _ in choices}


def test_doctor_sees_what_is_missing_or_in_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    homes = {"caffe_proto": ROOT, "inspector": ROOT, "cli": tmp_path}
    monkeypatch.setattr(doctoring, "_home", homes.__getitem__)
    monkeypatch.setattr(doctoring, "find_spec", lambda name: None)
    monkeypatch.setattr(doctoring.metadata, "packages_distributions", lambda: {"cli": ["alexinspect", "clitool"]})
    result = run("doctor")
    assert result.exit_code == 1
    assert re.search(rf"^problem +packages .*cli in {re.escape(str(tmp_path))}", result.stdout, re.MULTILINE)
    assert re.search(r"^problem +cli +also written by clitool", result.stdout, re.MULTILINE)
    assert re.search(r"^missing +extra hdf5 +without h5py; pip install 'alexinspect\[hdf5\]'", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_ALEXINSPECT_COMPLETE={shell}_complete" in result.stdout


def test_completion_of_models_and_commands() -> None:
    def completed(words: str) -> list[str]:
        settings = {**os.environ, "_INSPECTOR_COMPLETE": "zsh_complete"}
        code = "from cli.main import main; main(prog_name='inspector')"
        settings.update(COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True).stdout.split("\n")

    assert "googlenet" in completed("inspector summary goo")
    assert "caffenet/train_val_22" in completed("inspector summary caffenet/tr")
    assert "summary" in completed("inspector su")
