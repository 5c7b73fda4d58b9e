"""The page in a real browser: it loads without errors, finds, opens, switches; hostile names stay text."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import inspector
from caffe_proto import caffe_pb2
from cli.main import main
from inspector.caffemodel import write_model
from inspector.picture.page import Extra, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# runs after the page's own script; what it collects ends up in the page's text, which --dump-dom prints
HARNESS = """
<script>
window.errors = [];
addEventListener("error", event => errors.push(String(event.message)));
</script>
"""
REPORT = """
<script>
const answers = {};
const key = (name, more) => dispatchEvent(Object.assign(new KeyboardEvent("keydown", { key: name, ...more })));
const boxes = () => document.querySelectorAll("#world .box").length;
const send = (element, type) => element.dispatchEvent(new Event(type, { bubbles: true }));
try { @STEPS@ } catch (error) { errors.push(String(error)); }
answers.errors = errors;
const out = document.createElement("pre");
out.id = "answers";
out.textContent = "ANSWERS" + JSON.stringify(answers) + "SREWSNA";
document.body.append(out);
</script></body>
"""


def browse(text: str, steps: str, folder: Path, *, real_time: bool = False) -> dict[str, Any]:
    """Run steps in a headless browser; what they put into `answers`. Its clock stands still unless it is the real one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: the page is tested in a real browser (Debian's package chromium)")
    file = folder / "page.html"
    report = REPORT.replace("@STEPS@", steps)
    file.write_text(text.replace("<head>", "<head>" + HARNESS, 1).replace("</body>", report), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
    line = [
        CHROMIUM,
        *flags.split(),
        "--disable-component-update",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1200,800",
    ]
    line += [*([] if real_time else ["--virtual-time-budget=4000"]), "--dump-dom", file.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"<pre id=\"answers\">ANSWERS(.*)SREWSNA<", done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def embedded(file: Path) -> dict[str, Any]:
    """The data in a written page."""
    found = re.search(r'id="data">(.*?)</script>', file.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_it_loads_finds_opens_and_switches(tmp_path: Path) -> None:
    nets = [inspector.load("googlenet/train_val", phase) for phase in ("TRAIN", "TEST")]
    answers = browse(
        page(nets),
        """
        answers.title = document.title;
        answers.train = boxes();
        const search = document.getElementById("search");
        search.value = "inception_3a pool";
        send(search, "input");
        answers.found = document.getElementById("found").textContent;
        answers.dimmed = document.querySelectorAll("#world .dim").length;
        search.value = "";
        send(search, "input");
        const box = [...document.querySelectorAll("#world .box")].find(b => b.textContent.startsWith("conv1/7x7_s2"));
        send(box, "click");
        answers.details = document.getElementById("details").textContent;
        document.querySelector("[data-phase=TEST]").click();
        answers.test = boxes();
        answers.still = document.querySelector("#details h2").textContent;
        key("t");
        answers.rows = document.querySelectorAll("tbody tr").length;
        answers.beside = ["graph", "table"].map(id => document.getElementById(id).getBoundingClientRect().height > 100);
        [...document.querySelectorAll("th button")].find(b => b.textContent.startsWith("parameters")).click();
        answers.largest = document.querySelector("tbody td:nth-child(2)").textContent;
        key("t"); key("j"); key("+"); key("0"); key("d"); key("Escape");
        answers.theme = document.documentElement.dataset.theme;
        answers.closed = document.querySelector("#details h2").textContent;
        """,
        tmp_path,
    )
    assert answers["errors"] == []
    assert answers["title"] == "GoogleNet · alexinspect"
    written = {net.phase: len([node for node in net.layers if node.origin]) for net in nets}
    assert answers["train"] != answers["test"]
    assert answers["rows"] == written["TEST"]
    assert answers["beside"] == [True, True]
    assert answers["found"] == f"3 of {written['TRAIN']}"  # pool, pool_proj, relu_pool_proj
    assert answers["dimmed"] == answers["train"] - 2  # the last two share a box
    assert "7x7/2+3 64" in answers["details"]
    assert "9,472" in answers["details"]  # 64 * 3 * 7 * 7 + 64
    assert answers["still"] == "conv1/7x7_s2"
    assert answers["largest"] == "loss1/fc"  # 1024 * 2048 + 1024: the largest of the three classifiers' layers
    assert answers["theme"] in ("light", "dark")
    assert answers["closed"] == "GoogleNet"


def test_all_layers_of_the_deepest_net_are_there(tmp_path: Path) -> None:
    net = inspector.load("resnet152")
    steps = """
        key("t");
        answers.rows = document.querySelectorAll("tbody tr").length;
        key("t");
        for (let i = 0; i < 30; i++) key("j");
        answers.chosen = document.querySelectorAll("#world .chosen").length;
    """
    answers = browse(page([net]), steps, tmp_path)
    assert answers == {"rows": len(net.opened.proto.layer), "chosen": 1, "errors": []}


def test_all_721_layers_respond_within_a_second(tmp_path: Path) -> None:
    nets = [inspector.load("resnet152", phase) for phase in ("TEST", "TRAIN")]
    assert len(nets[0].layers) == 721
    steps = """
        answers.times = {};
        const timed = (name, act) => {
            const began = performance.now();
            act();
            document.body.getBoundingClientRect();  // which waits for the layout
            answers.times[name] = performance.now() - began;
        };
        const search = document.getElementById("search");
        timed("search", () => { search.value = "res4"; send(search, "input"); });
        timed("next", () => key("j"));
        timed("table", () => key("t"));
        timed("sort", () => document.querySelectorAll("th button")[5].click());
        timed("click", () => send(document.querySelectorAll("#world .box")[100], "click"));
        timed("phase", () => key("p"));
        timed("zoom", () => key("+"));
    """
    answers = browse(page(nets), steps, tmp_path, real_time=True)
    assert answers["errors"] == []
    assert len(answers["times"]) == 7
    assert 1 < max(answers["times"].values()) < 1000  # milliseconds


def test_what_a_file_says_is_only_text(tmp_path: Path) -> None:
    name = "</script><script>errors.push('it ran')</script><img src=x onerror=errors.push(1)>"
    layer = f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 2 }} }} }}'
    net = inspector.loads(f'name: "{name}" {layer}')
    extra = Extra(name, [(name, name)], [(name, b"")])
    steps = "answers.name = at('name').textContent; key('j'); key('t'); answers.scripts = document.scripts.length;"
    answers = browse(page([net], extras=[extra]), steps, tmp_path)
    assert answers["errors"] == []
    assert answers["name"] == name
    assert answers["scripts"] == 4  # ours: harness, data, page, report


def test_the_page_asks_nothing_of_the_network() -> None:
    text = page([inspector.load("lenet")])
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "@DATA@" not in text
    assert re.findall(r"https?://[\w./]+", text) == ["http://www.w3.org/2000/svg"]


def test_view_writes_both_phases_and_weights(tmp_path: Path) -> None:
    net = inspector.load("lenet")
    proto = caffe_pb2.NetParameter()
    for name in net.params:
        proto.layer.add(name=name)
    write_model(tmp_path / "w.caffemodel", proto, net.weights.by_layer())
    out = tmp_path / "lenet.html"
    result = CliRunner().invoke(main, ["view", "lenet", str(tmp_path / "w.caffemodel"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    data = embedded(out)
    assert list(data["phases"]) == ["TEST", "TRAIN"]
    row = next(row for row in data["phases"]["TEST"]["rows"] if row["name"] == "conv1")
    assert row["source"].startswith("layer {")
    assert [pairs[0] for pairs in row["stats"]] == [["blob", "0: 20 × 1 × 5 × 5"], ["blob", "1: 20"]]


def test_a_drawn_page_has_both_phases_and_what_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "net.html"
    assert CliRunner().invoke(main, ["draw", "lenet/train_val", "--only", "conv*", "-o", str(out)]).exit_code == 0
    data = embedded(out)
    assert list(data["phases"]) == ["TEST", "TRAIN"]
    assert [box["title"] for box in data["phases"]["TEST"]["boxes"] if box["rows"]] == ["conv1", "conv2"]
    assert CliRunner().invoke(main, ["draw", "lenet", "--only", "nonsense", "-o", str(tmp_path / "none.html")]).exit_code == 2
    assert not (tmp_path / "none.html").exists()


def test_a_page_of_a_net_that_caffe_refuses_says_so(tmp_path: Path) -> None:
    model = tmp_path / "bad.prototxt"
    model.write_text('layer { name: "r" type: "ReLU" bottom: "nowhere" top: "r" include { phase: TEST } }')
    result = CliRunner().invoke(main, ["view", str(model), "-o", str(tmp_path / "bad.html")])
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
    assert "nowhere" in embedded(tmp_path / "bad.html")["phases"]["TEST"]["error"]


def test_a_run_puts_its_answers_on_the_page(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")  # a module's class by its own name
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "red.png")
    net = inspector.load("cifar10_quick")
    proto = caffe_pb2.NetParameter()
    for name in net.params:
        proto.layer.add(name=name)
    weights = tmp_path / "w.caffemodel"
    write_model(weights, proto, net.weights.by_layer())
    out = tmp_path / "run.html"
    line = [
        "run",
        "cifar10_quick",
        str(weights),
        str(tmp_path / "red.png"),
        "--html",
        str(out),
        "--blob",
        "conv1",
        "--blob",
        "conv1",  # twice is once
        "--out",
        str(tmp_path / "conv1.npz"),
    ]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    assert zipfile.ZipFile(tmp_path / "conv1.npz").namelist() == ["conv1.npy", "names.npy"]
    assert "prob" not in result.stdout  # the table shows what was asked for, the page the answers too
    [section] = embedded(out)["extras"]
    assert section["title"] == str(tmp_path / "red.png")
    # weights of zero make all ten classes alike
    assert [pair[1] for pair in section["pairs"][:5]] == ["0.1000"] * 5
    assert [caption.split(",")[0] for caption, _ in section["images"]] == [str(tmp_path / "red.png"), "conv1"]
    picture = Image.open(BytesIO(base64.b64decode(section["images"][0][1].removeprefix("data:image/png;base64,"))))
    assert (picture.size, picture.getpixel((5, 5))) == ((40, 30), (200, 30, 30))
