"""The command `alexinspect`: a group that knows its commands by name and imports the one that is asked for.

A new command is a module of this package with a click command in it, and a row in COMMANDS.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from inspector import blas
from inspector._version import __version__
from inspector.errors import InspectorError

from . import show

# name -> where it lives, and the sentence that its own help begins with
COMMANDS = {
    "demo": ("cli.demo:demo", "Show what alexinspect does, in four commands and under five seconds."),
    "summary": ("cli.summary:summary", "Show the layers of a net, with shapes, parameters, operations and memory."),
    "log": ("cli.log:log", "Print what a version of Caffe would have logged while it built the net."),
    "diff": ("cli.diff:diff", "Say in what a model differs from a reference log, and why that may be."),
    "parse-log": ("cli.parse_log:parse_log", "Read a Caffe log: nets as tables or JSON, the net's text, training curves as CSV."),
    "dialects": ("cli.log:dialects", "List the versions of Caffe whose words are known, with what sets them apart."),
    "cost": ("cli.cost:cost", "Count the operations of a net, by kind: multiply-accumulates, additions, comparisons and so on."),
    "memory": ("cli.memory:memory", "Tell what memory a net takes, when, and the largest batch that fits."),
    "receptive": ("cli.receptive:receptive", "Show what part of the input each blob sees."),
    "layers": ("cli.layers:layers", "Describe the layer types, their settings and shape rules."),
    "check": ("cli.check:check", "Find everything that is wrong with a net, each finding with its place and remedy."),
    "explain": ("cli.explain:explain", "Explain a CODE, or one LAYER of a MODEL; without arguments list the codes."),
    "weights": ("cli.weights:weights", "Look into a file of weights: statistics, filters, arrays."),
    "compare": (
        "cli.compare:compare",
        "Say what differs between A and B: nets by meaning, files of weights by value, a net and weights by what fits.",
    ),
    "draw": ("cli.draw:draw", "Draw the graph of a net: shapes on edges, in-place layers stacked on their maker, blocks folded."),
    "dfd": ("cli.dfd:dfd", "Draw what one stage does to its data: blobs with their sizes, each operation with its settings."),
    "view": ("cli.view:view", "Show a net in the browser: graph, table, search, and all about a layer."),
    "models": ("cli.models:models", "List the nets that ship."),
    "run": ("cli.run:run", "Run a net on images, or on arrays."),
    "train": ("cli.train:train", "Train the net of a solver, and print what caffe train prints."),
    "test": ("cli.test:test", "Average a net's outputs over its own data, as `caffe test` does."),
    "extract": ("cli.extract:extract", "Save blobs for a folder of images, or for a net's own data, as .npz, HDF5 or LMDB."),
    "time": ("cli.time:time", "Time a net, layer by layer and as a whole."),
    "data": ("cli.data:data", "Make databases out of images, look into data sources, compute mean images."),
    "plan": ("cli.plan:plan", "Show the steps that a run takes: what each fuses, its kernel, and the memory of what it makes."),
    "upgrade": ("cli.upgrade:upgrade", "Write a net or solver of any generation in today's form."),
    "doctor": ("cli.doctor:doctor", "Tell what alexinspect runs on, and what is missing or in its way."),
    "completion": ("cli.completion:completion", "Print the script that completes commands, options and models in a shell."),
}
TROUBLE = 2
INTERRUPTED, CLOSED = 130, 141  # what a shell makes of Ctrl-C and of a closed pipe
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # where stdout goes nothing more can be written


class Closed(Exception):
    """Nobody reads our output any more; not an OSError, so that click lets it pass."""


class Commands(click.Group):
    """The one place where trouble becomes a message and an exit status. Whatever else escapes is a bug and shows its traceback.

    A command returns its status: None or 0 all well, 1 a difference or a finding.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(import_module(module), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, 1)
            remedy = f"did you mean '{close[0]}'?" if close else "see alexinspect --help for what there is"
            raise InspectorError(f"there is no command '{args[0]}'", code="no-such-command", remedy=remedy)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InspectorError as error:
            show.error(error)
            return TROUBLE
        except BrokenPipeError as error:
            raise Closed from error

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)  # where --help and --version speak
        except BrokenPipeError as error:
            raise Closed from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        run: Callable[[], Any] = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        blas.prepare()  # before anything imports NumPy
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
        try:
            status = run()
            sys.stdout.flush()
        except click.Abort:
            status = INTERRUPTED
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except (BrokenPipeError, Closed):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that nothing is left to be said at exit
            status = CLOSED
        except OSError as error:
            if error.errno not in FULL or error.filename is not None:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            message = f"cannot write the output: {(error.strerror or str(error)).lower()}"
            show.error(InspectorError(message, code="file", remedy="make room"))
            status = TROUBLE
        sys.exit(status if isinstance(status, int) else 0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alexinspect", message="%(prog)s %(version)s")
def main() -> None:
    """Read, show, check and run Caffe nets without Caffe.

    A MODEL is a prototxt, a caffemodel, a solver, the name of a model that ships (see `alexinspect models`), or - for stdin.

    Exit status: 0 all well, 1 a difference or a finding, 2 trouble.
    """
