"""The built wheel holds what it should, and nothing else."""

from __future__ import annotations

import configparser
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from inspector import __version__, shelf
from inspector.errors import InspectorError

ROOT = Path(__file__).resolve().parent.parent

needs_build = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("build", "hatchling")),
    reason="building a wheel needs build and hatchling: pip install -e '.[all]' --group dev",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The wheel's files with their content."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"alexinspect-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files(folder: str, *suffixes: str) -> set[str]:
    """A folder's files in the checkout, as paths from its root."""
    found = (path for suffix in suffixes for path in (ROOT / folder).rglob(f"*{suffix}"))
    return {path.relative_to(ROOT).as_posix() for path in found}


@needs_build
def test_wheel_holds_the_three_packages_and_the_models(wheel: dict[str, bytes]) -> None:
    assert {name.partition("/")[0] for name in wheel} == {
        "caffe_proto",
        "cli",
        "inspector",
        f"alexinspect-{__version__}.dist-info",
    }
    modules = files("caffe_proto", ".py", ".pyi", ".proto", ".desc") | files("cli", ".py") | files("inspector", ".py", ".toml")
    assert modules <= set(wheel)
    models = {f"inspector/{name}" for name in files("models", ".prototxt", ".caffemodel", ".png", "run.toml", "labels.txt")}
    assert models
    assert models <= set(wheel)
    assert {"caffe_proto/caffe.proto", "caffe_proto/caffe.desc", "inspector/py.typed"} <= set(wheel)
    assert not [name for name in wheel if "test" in Path(name).parts[0] or "__pycache__" in name]


@needs_build
def test_wheel_says_what_the_project_says(wheel: dict[str, bytes]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = f"alexinspect-{__version__}.dist-info"
    metadata = message_from_string(wheel[f"{info}/METADATA"].decode())
    assert metadata["Name"] == "alexinspect"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel[f"{info}/entry_points.txt"].decode())
    assert dict(scripts["console_scripts"]) == {"alexinspect": "cli.entry:main"}


@needs_build
def test_wheel_works_where_there_is_no_checkout(wheel: dict[str, bytes], tmp_path: Path) -> None:
    """The unpacked wheel alone finds its models, says its version and reads a digit by name, from another folder."""
    for name, content in wheel.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code = """
import sys; sys.path.insert(0, sys.argv.pop())
from inspector import shelf
print(*shelf.names()); print(shelf.resolve(shelf.names()[0]))
from cli.main import main
main(["--version"], standalone_mode=False)
sample = shelf.folder() / "lenet_digits" / "samples" / "7.png"
main(["run", "lenet_digits", str(sample), "--top", "1", "--format", "csv"], standalone_mode=False)
"""
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path / "site"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    names, path, version, _, digit = answer.stdout.splitlines()
    assert names.split() == shelf.names()
    assert path == str(tmp_path / "site" / "inspector" / "models" / shelf.names()[0] / "deploy.prototxt")
    assert version == f"alexinspect {__version__}"
    assert ",7,seven," in digit


def test_extra_all_is_all_of_them() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras.pop("all")
    assert everything == f"alexinspect[{','.join(extras)}]"


def test_module_starts_the_command() -> None:
    answer = subprocess.run([sys.executable, "-m", "inspector", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == f"alexinspect {__version__}\n"


def test_shelf_resolves_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bigone/deploy", "bigone/train_val", "other/train_val"):
        path = tmp_path / f"{name}.prototxt"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setattr(shelf, "folder", lambda: tmp_path)
    assert shelf.names() == ["bigone"]
    assert shelf.resolve("bigone") == tmp_path / "bigone" / "deploy.prototxt"
    assert shelf.resolve("bigone/train_val") == tmp_path / "bigone" / "train_val.prototxt"
    assert shelf.resolve("other/train_val") == tmp_path / "other" / "train_val.prototxt"
    for wrong, close in (("bigon", "bigone"), ("bigone/train-val", "bigone/train_val"), ("other/trainval", "other/train_val")):
        with pytest.raises(InspectorError) as caught:
            shelf.resolve(wrong)
        assert caught.value.code == "unknown-model"
        assert f"did you mean '{close}'?" in str(caught.value)
    with pytest.raises(InspectorError, match="the models that ship are bigone"):
        shelf.resolve("../../etc/passwd")
