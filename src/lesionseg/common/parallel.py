"""Parallel maps with a bounded number of results in flight."""

import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lesionseg.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` in the order of `items`, computed by `workers` threads.

    No more than twice as many results as workers are held at a time, however slow the consumer. Threads are right
    for functions that spend nearly all their time in C code without the interpreter lock; they need no copy of a
    result from one process to another. The first exception ends the map.
    """
    with ThreadPoolExecutor(workers) as pool:
        yield from _in_order(pool, function, items, 2 * workers)


def ordered_process_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """The same with `workers` processes, for functions that hold the interpreter lock some of the time.

    `function`, items and results travel between processes, so they must pickle. One worker is this process itself.
    Raises InputError when a worker is killed from outside.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Not fork: this process may have threads (progress bar, BLAS), and their locks would be copied as they are.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_the_parent) as pool:
            yield from _in_order(pool, function, items, 2 * workers)
    except BrokenProcessPool:
        raise InputError(
            f"one of {workers} worker processes was killed, most likely for want of memory; lower runtime.workers"
        ) from None


def cores() -> int:
    """The number of cores this process may use: fewer than the machine has under taskset or a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota == math.inf else min(allowed, max(1, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float:
    """How many cores' time control groups (version 1 or 2) grant this process; infinity without a limit.

    The limits of a group's parents hold too. Where a container does not mount the group's own path, its files lie at
    the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf  # not Linux
    quotas = [math.inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            top, files = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        here = PurePosixPath(group.lstrip("/"))
        for folder in (top / here, *(top / above for above in here.parents)):
            try:
                quota, period = " ".join((folder / file).read_text() for file in files).split()
            except (OSError, ValueError):
                continue
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min(quotas)


def worker_count(asked: int | None) -> int:
    """The workers to start for `runtime.workers`: one a core when it is None, and never less than one."""
    return cores() if asked is None else max(1, asked)


def _in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Result]:
    """Yield the results in order, at most `limit` of them under way or waiting."""
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= limit:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole process group; one message is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
