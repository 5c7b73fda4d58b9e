"""`check`: every finding, each once, in its place; nothing against nets that Caffe accepts, all against those it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from inspector import caffemodel, check, findings, shelf
from inspector.errors import Finding, Position

from .test_verdicts import CASES, Verdict, given_by

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }\n'


def found(text: str, phase: str = "TEST") -> list[Finding]:
    return check.check(inspector.loads(text, phase, name="net.prototxt"))


def codes(text: str, phase: str = "TEST") -> list[str]:
    return [finding.code for finding in found(text, phase)]


def ip(name: str, bottom: str, outputs: int = 5) -> str:
    param = f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}'
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {param} }}\n'


def layer(kind: str, bottom: str, top: str, rest: str = "") -> str:
    return f'layer {{ name: "{kind}_{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {rest} }}\n'


LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'

# ---- real nets


@pytest.mark.parametrize(("file", "phase", "verdict"), CASES)
def test_real_nets(file: str, phase: str, verdict: Verdict, reference: Path) -> None:
    """No error in a net that Caffe accepts, at least one in a net that it refuses; every place is in the text."""
    path = reference / "prototxts" / file
    net = inspector.load(path, phase, given=given_by(verdict, path, phase))
    errors = [finding for finding in check.check(net) if finding.severity == "error"]
    if verdict["accepted"]:
        assert not errors
    elif not verdict["environment"]:
        assert errors
    for finding in errors:
        assert finding.where is not None and net.opened.document is not None
        assert net.opened.document.caret(finding.where).endswith("^")


def test_nets_that_ship_have_no_fault() -> None:
    for path in sorted(shelf.folder().glob("*/*.prototxt")):
        for phase in ("TRAIN", "TEST"):
            assert {f.code for f in check.check(inspector.load(path, phase))} <= {"missing-source", "assumed-shape"}, path


# what the makers of the reference's broken nets did -> the codes that say so
BROKEN = {
    "bottom_count": {"bottom-count-exact", "bottom-count-least", "bottom-count-most"},
    "concat_shape": {"concat-shapes", "concat-axes"},
    "eltwise_shape": {"eltwise-shapes"},
    "filler": {"filler-unknown"},
    "group": {"conv-groups-input", "conv-groups-output"},
    "include_and_exclude": {"include-and-exclude"},
    "inplace_after_read": {"duplicate-top"},
    "input_dim": {"input-dim-count", "input-shape-count", "net-input-shape-count"},
    "lrn_even": {"lrn-even-size"},
    "negative_lr": {"batchnorm-learning-rate"},
    "no_num_output": {"conv-num-output"},
    "none_type": {"unknown-layer-type"},
    "pool_pad": {"pooling-pad-too-large-h"},
    "propagate_down_count": {"propagate-down-count"},
    "shared_lr": {"shared-lr-mult"},
    "shared_shape": {"shared-shape"},
    "top_count": {"top-count-exact", "top-count-least", "top-count-most"},
    "top_k": {"accuracy-top-k", "argmax-top-k", "argmax-top-k-axis", "argmax-top-k-item"},
    "unknown_type": {"unknown-layer-type", "v0-unknown-type", "unknown-enum-value"},
}
ONLY_THEN = {"dropout_one", "dummy", "type_without_code", "negative_lr"}  # what only the version of the log minds


def test_what_was_broken_is_found(reference: Path) -> None:
    missed = []
    for index in sorted((reference / "logs" / "nets").glob("*/index.tsv")):
        for row in index.read_text().splitlines()[1:]:
            seed, _, _, broken, *_ = row.split("\t")
            if broken == "-" or broken in ONLY_THEN:
                continue
            path = index.parent / f"net-{seed}.prototxt"
            seen = {
                f.code for phase in ("TRAIN", "TEST") for f in check.check(inspector.load(path, phase)) if f.severity == "error"
            }
            if not seen & BROKEN[broken]:
                missed.append((index.parent.name, seed, broken, seen))
    assert not missed


# ---- all at once, and none twice


def test_everything_at_once() -> None:
    text = (
        DATA
        + layer("Pooling", "data", "pool", "pooling_param { kernel_size: 2 pad: 4 }")
        + layer("Relu", "data", "a")
        + layer("ReLU", "dta", "b")
        + layer("LRN", "data", "norm", "lrn_param { local_size: 4 }")
    )
    assert codes(text) == ["pooling-pad-too-large-h", "unknown-layer-type", "unknown-bottom", "lrn-even-size"]
    assert [f.where.line for f in found(text) if f.where] == [2, 3, 4, 5]
    assert "did you mean 'ReLU'?" in found(text)[1].remedy
    assert "did you mean 'data'?" in found(text)[2].remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what follows from an unknown shape is not judged
        (
            DATA + layer("Nonsense", "data", "x") + layer("Pooling", "x", "y", "pooling_param { kernel_size: 99 }"),
            ["unknown-layer-type"],
        ),
        # a field that could not be read spoils the shapes behind it
        (
            DATA
            + layer("Pooling", "data", "p", "pooling_param { kernel_sise: 2 stride: 2 }")
            + 'layer { name: "s" type: "Eltwise" bottom: "p" bottom: "data" top: "s" }',
            ["unknown-field"],
        ),
        # a field of a fork does not
        (
            DATA + layer("Pooling", "data", "p", "pooling_param { quantum_foam: 2 }"),
            ["pooling-kernel-missing", "unknown-field"],
        ),
        # a layer that is refused for its rules still makes its blob, as far as others care
        (
            DATA + layer("ReLU", "data", "r", 'include { phase: TEST } exclude { stage: "x" }') + layer("ReLU", "r", "s"),
            ["include-and-exclude"],
        ),
        # one misspelt name, one finding
        (
            DATA
            + layer("ReLU", "dat", "a")
            + layer("ReLU", "a", "b")
            + layer("Pooling", "b", "c", "pooling_param { kernel_size: 2 }"),
            ["unknown-bottom"],
        ),
    ],
)
def test_one_mistake_is_one_finding(text: str, expected: list[str]) -> None:
    assert sorted(codes(text)) == sorted(expected)


def test_places_are_exact() -> None:
    text = DATA + 'layer { name: "r"\n  type: "ReLU"\n  bottom: "data"\n  bottom: "other" top: "r" }\n'
    [count, unknown] = sorted(found(text), key=lambda finding: finding.code)
    assert count.code == "bottom-count-exact"
    assert (unknown.code, unknown.where) == ("unknown-bottom", Position("net.prototxt", 5, 3))


def test_a_syntax_error_keeps_what_was_found_before_it() -> None:
    with pytest.raises(inspector.InspectorError) as caught:
        inspector.loads('nme: "x"\nlayer { name: }', name="net.prototxt")
    last = check.unread(caught.value)  # type: ignore[arg-type]
    assert [f.code for f in last] == ["unknown-field", "syntax-error"]
    assert last[1].where == Position("net.prototxt", 2, 15)
    assert "\n" not in last[1].message


# ---- in place


@pytest.mark.parametrize(
    ("middle", "phase", "expected"),
    [
        # what everybody writes
        (layer("ReLU", "ip", "ip") + layer("Dropout", "ip", "ip"), "TRAIN", []),
        (layer("BatchNorm", "ip", "ip") + layer("Scale", "ip", "ip") + layer("ReLU", "ip", "ip"), "TRAIN", []),
        (layer("TanH", "ip", "ip") + layer("ReLU", "ip", "ip"), "TRAIN", []),
        (layer("Power", "ip", "ip", "power_param { scale: 2 }"), "TRAIN", []),
        # gradients from values that are gone
        (layer("TanH", "ip", "ip") + layer("Dropout", "ip", "ip"), "TRAIN", ["in-place-gradient"]),
        (layer("TanH", "ip", "ip") + layer("Dropout", "ip", "ip"), "TEST", []),
        (layer("ReLU", "ip", "ip") + layer("Scale", "ip", "ip"), "TRAIN", ["in-place-gradient"]),
        (layer("Power", "ip", "ip", "power_param { power: 2 }"), "TRAIN", ["in-place-gradient"]),
        (layer("BNLL", "ip", "ip"), "TRAIN", ["in-place-gradient"]),
        (layer("MVN", "ip", "ip"), "TRAIN", ["in-place-gradient"]),
        (layer("MVN", "ip", "ip", "mvn_param { normalize_variance: false }"), "TRAIN", []),
        # numbers from values that are gone, in any phase
        (layer("InnerProduct", "ip", "ip", "inner_product_param { num_output: 5 }"), "TEST", ["in-place-unable"]),
    ],
)
def test_in_place(middle: str, phase: str, expected: list[str]) -> None:
    seen = [code for code in codes(DATA + LABEL + ip("ip", "data") + middle + LOSS, phase) if code.startswith("in-place")]
    assert seen == expected


def test_in_place_under_another_name() -> None:
    """Flatten and Split give the same memory a second name."""
    flat = layer("Flatten", "s", "f") + layer("Scale", "f", "f")
    body = DATA + LABEL + ip("ip", "data") + layer("Sigmoid", "ip", "s") + flat
    assert codes(body + LOSS.replace('"ip"', '"f"'), "TRAIN") == ["in-place-gradient"]
    assert codes(body + layer("Power", "s", "late"), "TEST") == ["in-place-overwritten"]
    assert codes(DATA + layer("Power", "data", "s") + layer("Power", "s", "early") + flat, "TEST") == []


def test_our_gradients_differ_where_check_says_so() -> None:
    """The executor works with Caffe's shared memory, so the gradient of Power in place is wrong, and right beside it."""
    body = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }'
    x = np.array([[1.5, -2.0, 0.5], [3.0, 4.0, -1.0]], np.float32)
    gradients = []
    for top in ("copy", "squared"):
        net = inspector.loads(
            body + layer("Power", "d", "copy") + layer("Power", "copy", top, "power_param { power: 3 }") + "force_backward: true",
            "TRAIN",
        )
        net.forward(d=x)
        gradients.append(net.backward(["d"], **{top: np.ones_like(x)})["d"])
    assert np.allclose(gradients[1], 3 * x**2, rtol=1e-5)
    assert not np.allclose(gradients[0], gradients[1])


# ---- phases


def test_a_layer_left_out_in_one_phase_is_named() -> None:
    text = DATA + layer("Power", "data", "x", "include { phase: TRAIN }") + layer("ReLU", "x", "y")
    assert codes(text, "TRAIN") == []
    [missing] = found(text, "TEST")
    assert missing.code == "unknown-bottom"
    assert "Power_x" in missing.remedy


def test_batch_norm_of_each_phase_may_be_a_layer_of_its_own() -> None:
    train = layer("BatchNorm", "data", "bn", "include { phase: TRAIN }")
    test = layer("BatchNorm", "data", "bn", "include { phase: TEST }")
    assert "batchnorm-in-one-phase" not in codes(DATA + train + test)
    copy = layer("Power", "data", "bn")
    assert "batchnorm-in-one-phase" in codes(DATA + copy + layer("BatchNorm", "bn", "bn", "include { phase: TRAIN }"))


def test_dropout_in_one_phase() -> None:
    def severities(kept: str, phase: str) -> list[str]:
        dropout = layer("Dropout", "x", "x", f"include {{ phase: {kept} }}")
        return [finding.severity for finding in found(DATA + layer("Power", "data", "x") + dropout, phase)]

    assert severities("TRAIN", "TEST") == ["note"]
    assert severities("TEST", "TRAIN") == ["warning"]
    assert severities("TRAIN", "TRAIN") == severities("TEST", "TEST") == []


# ---- weights


def weights_of(net: inspector.Net, path: Path, rename: dict[str, str] | None = None) -> Path:
    proto = type(net.graph.proto)()
    proto.CopyFrom(net.graph.proto)
    arrays = {}
    for stored in proto.layer:
        views = net.params.get(stored.name, [])
        stored.name = (rename or {}).get(stored.name, stored.name)
        arrays[stored.name] = [np.zeros(view.shape, np.float32) for view in views]
    caffemodel.write_model(path, proto, arrays)
    return path


def test_weights_that_fit(tmp_path: Path) -> None:
    net = inspector.loads(DATA + ip("ip1", "data") + ip("ip2", "ip1"))
    assert check.check(net, weights_of(net, tmp_path / "net.caffemodel")) == []


def test_every_mismatch_is_listed_with_both_shapes(tmp_path: Path) -> None:
    stored = inspector.loads(DATA + ip("ip1", "data", 6) + ip("ip2", "ip1", 7) + ip("ip_3", "ip2") + layer("ReLU", "ip2", "r"))
    path = weights_of(stored, tmp_path / "net.caffemodel")
    net = inspector.loads(DATA + ip("ip1", "data", 5) + ip("ip2", "ip1", 7) + ip("ip3", "ip2"))
    seen = check.check(net, path)
    assert [f.code for f in seen] == [
        "weights-shape",
        "weights-shape",
        "weights-shape",
        "weights-missing",
        "weights-unused",
        "weights-ignored",
    ]
    assert "5 x 216" in seen[0].message and "6 x 216" in seen[0].message
    assert "7 x 5" in seen[2].message and "7 x 6" in seen[2].message
    assert "did you mean 'ip_3'?" in seen[3].remedy
    assert "'ip_3'" in seen[4].message and "5 x 7" in seen[4].message
    assert "'ReLU_r'" in seen[5].message


def test_weights_are_checked_behind_the_first_error(tmp_path: Path) -> None:
    text = DATA + layer("LRN", "data", "n", "lrn_param { local_size: 2 }") + ip("ip", "data", 6)
    path = weights_of(inspector.loads(DATA + ip("ip", "data", 7)), tmp_path / "net.caffemodel")
    assert [f.code for f in check.check(inspector.loads(text), path)] == ["lrn-even-size", "weights-shape", "weights-shape"]


def test_a_binary_net_is_held_against_itself(tmp_path: Path) -> None:
    net = inspector.loads(DATA + ip("ip", "data"))
    path = weights_of(net, tmp_path / "net.caffemodel")
    assert check.check(inspector.load(path)) == []
    proto = caffemodel.open_model(path).proto
    proto.layer[1].inner_product_param.num_output = 6
    caffemodel.write_model(path, proto, {"ip": [np.zeros((5, 216), np.float32), np.zeros(5, np.float32)]})
    assert [f.code for f in check.check(inspector.load(path))] == ["weights-shape", "weights-shape"]


# ---- the command


BAD = (
    DATA
    + layer("ReLU", "dat", "r")
    + LABEL
    + ip("ip", "data")
    + LOSS
    + layer("Pooling", "data", "Data", "pooling_param { kernel_size: 2 }")
)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad net.prototxt"
    path.write_text(BAD)
    return path


def run(*arguments: str | Path, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout


def test_text(bad: Path) -> None:
    status, text = run("check", bad)
    assert status == 1
    assert text.startswith(f"{bad}\n")
    assert "  2:37: error[unknown-bottom]: layer 'ReLU_r' (ReLU): bottom 0 is 'dat', which no layer before it makes\n" in text
    line, caret = re.search(r"makes\n +\| (.*)\n +\| (.*)\n", text).groups()  # type: ignore[union-attr]
    assert line[caret.index("^") :].startswith('bottom: "dat"')
    assert "help: did you mean 'data'?" in text
    assert text.count("unknown-bottom") == 1  # met in both phases
    assert "(only in TRAIN)" in text
    assert text.splitlines()[-1] == "1 error and 3 warnings (checked in TRAIN and TEST)"


def test_text_keeps_to_the_terminal(bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, text = run("check", bad)
    lines = text.replace(str(bad), "").splitlines()
    assert max(map(len, lines)) <= 60


def test_json(bad: Path) -> None:
    status, text = run("check", bad, "--format", "json")
    data = json.loads(text)
    assert status == 1
    assert data["counts"] == {"error": 1, "warning": 3, "note": 0}
    [model] = data["models"]
    assert model["phases"] == ["TRAIN", "TEST"]
    first = next(f for f in model["findings"] if f["severity"] == "error")
    assert (first["code"], first["line"], first["column"], first["layer"], first["phases"]) == (
        "unknown-bottom",
        2,
        37,
        "ReLU_r",
        ["TRAIN", "TEST"],
    )
    assert first["values"]["blob"] == "dat"


def test_github(bad: Path) -> None:
    _, text = run("check", bad, "--format", "github", "--select", "unknown-bottom")
    assert text.startswith(f"::error file={bad},line=2,col=37,title=unknown-bottom::layer 'ReLU_r' (ReLU): bottom 0 is 'dat'")
    assert text.count("\n") == 1
    one = check.Found(Finding("x", "50% of\na,b: c"), ("TEST",))
    assert list(findings.github([one])) == ["::error title=x::50%25 of%0Aa,b: c"]


def test_sarif(bad: Path) -> None:
    """What the specification asks of a run, its rules, results and regions (SARIF 2.1.0, 3.13 to 3.30 and 3.49)."""
    _, text = run("check", bad, "--format", "sarif")
    log = json.loads(text)
    assert log["version"] == "2.1.0"
    [run_] = log["runs"]
    rules = run_["tool"]["driver"]["rules"]
    assert run_["tool"]["driver"]["name"] == "alexinspect"
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert all(rule["shortDescription"]["text"] for rule in rules)
    assert len(run_["results"]) == 4
    for result in run_["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        [location] = result["locations"]
        physical = location["physicalLocation"]
        assert unquote(physical["artifactLocation"]["uri"]) == f"file://{bad}"
        assert " " not in physical["artifactLocation"]["uri"]
        assert physical["region"]["startLine"] >= 1 and physical["region"]["startColumn"] >= 1


def test_select_ignore_and_exit_status(bad: Path, tmp_path: Path) -> None:
    assert run("check", bad, "--ignore", "unknown-*")[0] == 0
    assert run("check", bad, "--ignore", "unknown-*", "--error-on-warning")[0] == 1
    assert run("check", bad, "--select", "names-*")[1].count("[") == 1
    assert run("check", bad, "--select", "nonsense")[0] == 2
    assert run("check", tmp_path / "missing.prototxt")[0] == 2
    good = tmp_path / "good.prototxt"
    good.write_text(DATA + ip("ip", "data"))
    assert run("check", good) == (0, "no findings (checked in TRAIN and TEST)\n")
    assert run("check", good, "--phase", "test") == (0, "no findings (checked in TEST)\n")
    assert run("check", "-", stdin=BAD)[0] == 1
    status, text = run("check", good, bad)
    assert status == 1 and text.endswith("in 2 models (checked in TRAIN and TEST)\n")


def test_a_file_for_one_phase_is_checked_in_that(tmp_path: Path) -> None:
    path = tmp_path / "train.prototxt"
    path.write_text(DATA.replace('top: "data"', 'top: "data" include { phase: TRAIN }', 1) + ip("ip", "data"))
    assert run("check", path) == (0, "no findings (checked in TRAIN)\n")
    assert run("check", path, "--phase", "TEST")[0] == 1


def test_a_solver_and_its_net(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DATA + layer("Relu", "data", "r"))
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt"\nbase_lr: 0.1\nlr_policy: "stepp"\nmax_iter: 9\ntest_iter: 3\n')
    status, text = run("check", solver)
    assert status == 1
    assert f"{solver}\n  3:1: error[solver-policy]" in text
    assert "5:1: error[solver-test-interval]" in text
    assert f"{tmp_path / 'net.prototxt'}\n  2:24: error[unknown-layer-type]" in text


def test_explain(bad: Path) -> None:
    status, text = run("explain", "unknown-bottom")
    assert status == 0
    assert "Unknown bottom blob" in text and "Wrong" in text and "Right" in text
    assert json.loads(run("explain", "unknown-bottom", "--format", "json")[1])["codes"] == ["unknown-bottom"]
    assert "unknown-bottom" in run("explain")[1]
    assert run("explain", "unknown-botom")[0] == 2
