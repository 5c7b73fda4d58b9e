"""Which processors OpenBLAS is known to misjudge, and that nothing that the user has said is overruled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from inspector import blas

from .conftest import ROOT

ZEN5 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC 9755
flags\t\t: fpu vme avx2 fma avx512f avx512dq

processor\t: 1
vendor_id\t: AuthenticAMD
"""


@pytest.mark.parametrize(
    ("cpuinfo", "answer"),
    [
        (ZEN5, True),
        (ZEN5.replace("26", "25"), False),  # Zen 4 and before: OpenBLAS knows them
        (ZEN5.replace("AuthenticAMD", "GenuineIntel"), False),
        (ZEN5.replace("avx512f", "avx512_foo"), False),
        (ZEN5.replace("cpu family\t: 26", "cpu family\t:"), False),
        ("", False),
    ],
)
def test_misjudged(cpuinfo: str, answer: bool) -> None:
    assert blas.misjudged(cpuinfo) is answer


def test_prepare_sets_the_variable_only_where_nobody_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blas, "CPUINFO", tmp_path / "cpuinfo")
    environment: dict[str, str] = {}
    assert not blas.prepare(environment)  # no such file
    blas.CPUINFO.write_text(ZEN5)
    assert not blas.prepare({blas.VARIABLE: "Haswell"})
    assert blas.prepare(environment)
    assert environment == {"OPENBLAS_CORETYPE": "SkylakeX"}


def test_preparing_imports_no_numpy() -> None:
    code = "import sys; from inspector import blas; blas.prepare({}); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_describe() -> None:
    facts = blas.describe(measure=False)
    assert facts["name"] and facts["version"]
    assert facts["threads"] is None or facts["threads"] >= 1
    assert "gflops" not in facts
    measured = blas.describe()
    assert measured["gflops"] > 0 and measured["copy_gb_per_s"] > 0
    assert blas.cores() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else blas.cores() >= 1
