"""What `alexinspect summary` of a net of 721 layers costs as a whole process, in CPU seconds, beside what cannot be avoided.

    python benchmarks/summary.py [RUNS]

Goal: under 0.3 s. The floor is a bare interpreter that imports click and protobuf's runtime (what parses the command line and what
holds the messages), nothing of ours. Runs of all are interleaved, and the medians are what counts: machines are shared and noisy.
Bytecode is kept in a folder that the first, uncounted run fills, so that a checkout and an installed wheel are measured alike.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = "resnet152"
GOAL = 0.3

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "floor: + click, protobuf": ["-c", "import click; from google.protobuf import descriptor, message"],
    "alexinspect --version": ["-m", "inspector", "--version"],
    "summary lenet": ["-m", "inspector", "summary", "lenet"],
    f"summary {MODEL}": ["-m", "inspector", "summary", MODEL],
    f"summary {MODEL} in colour": ["-m", "inspector", "summary", MODEL, "--color", "always"],
    f"summary {MODEL} --format json": ["-m", "inspector", "summary", MODEL, "--format", "json"],
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """User and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, "-m", "inspector", "summary", MODEL, "--format", "json"]
        totals = json.loads(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)["totals"]
        assert (totals["layers_size"], totals["parameters"]) == (721, 60_344_387), "this is not the net that is to be measured"
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for run in range(runs + 1):
            for name, arguments in COMMANDS.items():
                spent = seconds(arguments, environment)
                if run:  # the first fills the cache
                    times[name].append(spent)
    print(f"CPU seconds, {runs} runs each, Python {sys.version.split()[0]}: median (least)")
    for name, spent in times.items():
        print(f"  {name:<34} {statistics.median(spent):.3f} ({min(spent):.3f})")
    reached = statistics.median(times[f"summary {MODEL}"])
    print(f"goal {GOAL} s for summary {MODEL}: {'met' if reached < GOAL else 'missed'}")


if __name__ == "__main__":
    main()
