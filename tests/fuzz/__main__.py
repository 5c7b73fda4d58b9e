"""Fuzz the readers for as long as one wants.

    python -m tests.fuzz [--seconds N] [--seed S] [READER ...]

Every input that breaks a reader is made smaller and kept in the folder `--keep`; the status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from .engine import Broken, fuzz, smaller
from .readers import readers


def main(arguments: list[str] | None = None) -> int:
    known = readers()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--seconds", type=float, default=10, help="for each reader (default 10)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args(arguments)
    if unknown := set(options.readers) - known.keys():
        parser.error(f"no reader is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    worst = 0
    for name in options.readers or known:
        reader = known[name]
        end, seed, runs = time.monotonic() + options.seconds, options.seed, 0
        seen: set[str] = set()
        while (left := end - time.monotonic()) > 0:
            try:
                runs += fuzz(reader, seconds=left, seed=seed).runs
            except Broken as broken:
                worst, runs = 1, runs + broken.runs
                if broken.where not in seen:
                    seen.add(broken.where)
                    content = smaller(reader, broken)
                    options.keep.mkdir(exist_ok=True)
                    path = options.keep / f"{name}-{hashlib.sha1(content).hexdigest()[:8]}"
                    path.write_bytes(content)
                    print(f"{name}: {broken.where}\n    {path}: {content[:300]!r}")
            seed += 1
        print(f"{name}: {runs} inputs, {len(seen)} of them broke it", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
