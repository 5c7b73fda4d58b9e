"""One runner in a process of its own: what it takes to load a net from its files, to answer first, and how much memory at most.

    python -m benchmarks.alone RUNNER FOLDER BATCH        prints one line of JSON; FOLDER as `peers` writes it

One thread. CPU time in ms, memory in MB; libraries are imported before the clock starts, for `run` states start-up apart.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from time import process_time

os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"))


def peak() -> float:
    """MB that this program has held at most. Not getrusage's figure: a child inherits that from who started it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return float("nan")


def main() -> None:
    name, folder, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    from inspector import blas

    blas.prepare()
    import numpy as np

    import inspector

    from .peers import OURS, PEERS, PROTOTXT

    peer = {**OURS, **PEERS}[name]
    import_module(peer.module)
    net = inspector.load(folder / PROTOTXT)
    x = np.zeros((batch, *(net.blobs[net.inputs[0]].shape or ())[1:]), np.float32)
    before, start = peak(), process_time()
    run = peer.load(folder, batch, 1)
    loaded = process_time()
    run(x)
    first = process_time()
    figures = {"load": 1e3 * (loaded - start), "first": 1e3 * (first - loaded), "before": before, "peak": peak()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
