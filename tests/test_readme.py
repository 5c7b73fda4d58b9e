"""The README keeps its word: its commands exist, and CI ends in the one that runs the tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def marked(name: str) -> str:
    """The command in the code block between <!-- NAME --> and <!-- /NAME -->."""
    found = re.search(rf"<!-- {name} -->\s*```sh\n(.*?)\n```\s*<!-- /{name} -->", README, re.DOTALL)
    assert found, f"README.md has no block marked {name}"
    return found[1]


def command_lines() -> list[str]:
    """Every line of a code block that starts the command, its continuation lines joined, without what is piped or redirected."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (re.search(r"(?:^|[\s/])alexinspect +([^|>#&]+)", line) for line in lines)
    return sorted({match[1].strip() for match in found if match})


@pytest.mark.parametrize("line", command_lines())
def test_command_exists(line: str) -> None:
    """The words name a command (of a group, if so), and its options are among those that the command has."""
    command: click.Command = main
    words = shlex.split(line)
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found, f"README.md shows 'alexinspect {line}', and there is no command '{name}'"
        command, context = found, click.Context(found, parent=context)
    known = {text for parameter in command.get_params(context) for text in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert options <= known, f"README.md shows 'alexinspect {line}' with options that it does not have"


def test_first_command_runs_the_main_job() -> None:
    assert re.fullmatch(r"sh setup\.sh \.venv \S+ && \.venv/bin/alexinspect .+", marked("use"))


def test_ci_ends_in_the_second_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().splitlines()[-1] == marked("test")
    assert marked("test").endswith("-m pytest")


def test_links_point_at_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
