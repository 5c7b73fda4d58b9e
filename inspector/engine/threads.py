"""Workers: parts of a batch side by side, each with one BLAS thread; whole steps with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..blas import cores
from ..kernels.fast.base import Call, run


class Workers:
    """The threads of one engine: `wanted`, or as many as BLAS has been told to use, and never more than the process may.

    As a context they hold BLAS to the number that is wanted. Without threadpoolctl BLAS cannot be told, so there is one worker, and
    BLAS does as its environment says.
    """

    def __init__(self, wanted: int | None) -> None:
        self._controller = _controller()
        self._wanted = wanted
        told = [pool["num_threads"] for pool in self._controller.info()] if self._controller is not None else []
        self.count = max(1, min(wanted or max(told, default=1), cores())) if told else 1
        self._pool: ThreadPoolExecutor | None = None
        self._limit: Any = None

    def __enter__(self) -> Workers:
        if self._controller is not None and self._wanted is not None:
            self._limit = self._controller.limit(limits=self.count)
            self._limit.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._limit is not None:
            self._limit.__exit__(*exception)
            self._limit = None

    def run(self, parts: Sequence[Sequence[Call]]) -> None:
        """Run every list of calls; side by side where there is more than one."""
        if len(parts) == 1:
            run(parts[0])
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="alexinspect")
        with self._controller.limit(limits=1):
            for done in [self._pool.submit(_quietly, part) for part in parts]:
                done.result()


def _quietly(calls: Sequence[Call]) -> None:
    with np.errstate(all="ignore"):  # which is a thread's own
        run(calls)


def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")
