"""What people put into their CI: the GitHub Action and the pre-commit hooks name what exists, and do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import main

from .conftest import ROOT

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


def yaml(text: str) -> Any:
    """The YAML that these files keep to: nested mappings and lists, plain and quoted scalars, literal blocks."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines() if line.strip()]

    def block(i: int, indent: int) -> tuple[Any, int]:
        result: Any = [] if lines[i][1].startswith("- ") else {}
        while i < len(lines) and lines[i][0] == indent:
            content = lines[i][1]
            if isinstance(result, list):
                assert content.startswith("- "), content
                lines[i] = (indent + 2, content[2:])
                item, i = block(i, indent + 2)
                result.append(item)
                continue
            key, colon, value = content.partition(":")
            assert colon and re.fullmatch(r"[\w-]+", key), content
            i += 1
            if value.strip() == "|":
                inner = lines[i][0]
                literal = []
                while i < len(lines) and lines[i][0] >= inner:
                    literal.append(" " * (lines[i][0] - inner) + lines[i][1])
                    i += 1
                result[key] = "\n".join(literal) + "\n"
            elif value.strip():
                result[key] = value.strip().strip('"')
            elif i < len(lines) and lines[i][0] > indent:
                result[key], i = block(i, lines[i][0])
            else:
                result[key] = None
        return result, i

    found, end = block(0, 0)
    assert end == len(lines), f"line {lines[end]} is out of place"
    return found


ACTION = yaml((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS = yaml((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def command_of(entry: str) -> tuple[click.Command, list[str]]:
    program, name, *rest = shlex.split(entry)
    assert program == "alexinspect"
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    return command, rest


def test_the_action_is_composite_and_settles_its_inputs() -> None:
    assert ACTION["runs"]["using"] == "composite"
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    for entry in ACTION["inputs"].values():
        assert entry["description"] and "default" in entry
    steps = ACTION["runs"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(step["shell"] == "bash" for step in steps if "run" in step)
    assert not any("${{" in step.get("run", "") for step in steps), "inputs reach a script through its environment only"
    assert any("GITHUB_ACTION_PATH" in step.get("run", "") for step in steps)


def script() -> tuple[str, dict[str, str]]:
    step = ACTION["runs"]["steps"][-1]
    return step["run"], step["env"]


def run_script(paths: str, args: str = "") -> subprocess.CompletedProcess[str]:
    """The action's last step as GitHub runs it: bash, stopping at the first error."""
    text, names = script()
    inputs = {"inputs.paths": paths, "inputs.args": args}
    environment = {**ENVIRONMENT, **{name: inputs[value.strip("${} ")] for name, value in names.items()}}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_action_checks_the_models() -> None:
    result = run_script("models/lenet\nmodels/caffenet", "--strict")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("references are met") == 2


def test_the_action_fails_and_annotates(tmp_path: Path) -> None:
    (tmp_path / "net.log").write_bytes((ROOT / "models/lenet/reference/deploy.TEST.master.log").read_bytes())
    text = (ROOT / "models/lenet/deploy.prototxt").read_text(encoding="utf-8")
    (tmp_path / "net.prototxt").write_text(text.replace("num_output: 50", "num_output: 60"), encoding="utf-8")
    result = run_script(f"{tmp_path} models/lenet")
    assert result.returncode == 1
    assert "::error file=" in result.stdout and "num_output 50 became 60?" in result.stdout
    assert run_script(str(tmp_path / "absent")).returncode == 2


def test_hooks_have_what_pre_commit_needs() -> None:
    assert len({hook["id"] for hook in HOOKS}) == len(HOOKS)
    for hook in HOOKS:
        assert {"id", "name", "entry", "language", "files"} <= hook.keys()
        assert hook["language"] == "python"
        re.compile(hook["files"])
        command, rest = command_of(hook["entry"])
        known = {text for parameter in command.params for text in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hooks_run_on_the_models(hook: dict[str, str]) -> None:
    """As pre-commit runs them: in the repository's folder, with the files that match."""
    words = shlex.split(hook["entry"])
    if hook.get("pass_filenames") != "false":
        files = [
            str(path.relative_to(ROOT)) for path in sorted((ROOT / "models").glob("*/*")) if re.search(hook["files"], path.name)
        ]
        words += files[:6]
    words = [Path(sys.executable).parent / words[0], *words[1:]]  # type: ignore[list-item]
    folder = ROOT / "models" if hook.get("pass_filenames") == "false" else ROOT
    result = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_shows_both() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    shown = "\n".join(blocks)
    workflow = next(yaml(block) for block in blocks if "jobs:" in block)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    ours = next(step for step in steps if "alexinspect" in step["uses"])
    assert set(ours.get("with", {})) <= set(ACTION["inputs"])
    hooks = next(yaml(block) for block in blocks if "repos:" in block)
    used = {hook["id"] for repo in hooks["repos"] for hook in repo["hooks"]}
    assert used and used <= {hook["id"] for hook in HOOKS}, shown
