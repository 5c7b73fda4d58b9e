"""The BLAS behind NumPy: which kernels it takes, how many threads, and the remedy where it takes this one for an older."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
VARIABLE = "OPENBLAS_CORETYPE"
BETTER = "SkylakeX"
ZEN5 = 0x1A  # AMD's family from which OpenBLAS, not knowing it, takes kernels without AVX-512


def misjudged(cpuinfo: str) -> bool:
    """Whether OpenBLAS is known to take this processor (the text of /proc/cpuinfo) for one with half its vector width."""
    fields = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    family = fields.get("cpu family", "")
    amd = fields.get("vendor_id") == "AuthenticAMD" and family.isdecimal() and int(family) >= ZEN5
    return amd and "avx512f" in fields.get("flags", "").split()


def prepare(environment: MutableMapping[str, str] | None = None) -> bool:
    """Say in the environment which kernels OpenBLAS is to take, where its own guess is known to be wrong and nobody has said.

    Works only before NumPy is first imported, so programs call it as they start; a library must not. Returns whether it did.
    """
    environment = os.environ if environment is None else environment
    if VARIABLE in environment or not CPUINFO.exists():
        return False
    try:
        with CPUINFO.open(encoding="ascii", errors="replace") as file:
            text = file.read(8192)
    except OSError:
        return False
    if not misjudged(text):
        return False
    environment[VARIABLE] = BETTER
    return True


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(*, measure: bool = True) -> dict[str, Any]:
    """What NumPy multiplies matrices with. `kernels` and `threads` are None without threadpoolctl.

    With `measure` also `gflops`, of a product of 1024 x 1024 matrices, and `copy_gb_per_s`, both taking some 50 ms. `hint` says
    what would make it faster, or nothing.
    """
    import numpy as np

    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    facts: dict[str, Any] = {"name": built["name"], "version": built["version"], "kernels": None, "threads": None, "hint": ""}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        pass
    else:
        for pool in threadpool_info():
            if pool["user_api"] == "blas":
                facts.update(kernels=pool.get("architecture"), threads=pool["num_threads"])
    if measure:
        facts.update(_rates())
    wanted: dict[str, str] = {}
    if prepare(wanted) and facts["kernels"] not in (None, BETTER) and VARIABLE not in os.environ:
        facts["hint"] = f"set {VARIABLE}={BETTER} before Python starts: its kernels fit this processor better"
    return facts


def _rates() -> dict[str, float]:
    from time import perf_counter

    import numpy as np

    a = np.ones((1024, 1024), np.float32)
    out, block = np.empty_like(a), np.ones(1 << 22, np.float32)
    target = np.empty_like(block)
    best = {"gflops": 0.0, "copy_gb_per_s": 0.0}
    for _ in range(4):
        start = perf_counter()
        np.matmul(a, a, out=out)
        middle = perf_counter()
        np.copyto(target, block)
        end = perf_counter()
        best["gflops"] = max(best["gflops"], 2 * 1024**3 / (middle - start) / 1e9)
        best["copy_gb_per_s"] = max(best["copy_gb_per_s"], 2 * block.nbytes / (end - middle) / 1e9)
    return best
