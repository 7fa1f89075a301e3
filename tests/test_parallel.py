"""The number of cores that a process may use."""

import math
import os

import pytest

from lesionseg.common import parallel

UNIFIED, LEGACY = "0::{group}\n", "12:pids:{group}\n4:cpu,cpuacct:{group}\n1:name=systemd:{group}\n"


def control_group(root, lines, group, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines.format(group=group))
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("lines", "group", "files", "expected"),
    [
        (UNIFIED, "/", {"cpu.max": "150000 100000\n"}, 1.5),  # in a container with its own name space
        (UNIFIED, "/docker/abc", {"cpu.max": "200000 100000\n"}, 2),  # the group's own path is not mounted
        (UNIFIED, "/a/b", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),  # the one above binds
        (UNIFIED, "/", {"cpu.max": "max 100000\n"}, math.inf),
        (UNIFIED, "/", {}, math.inf),
        (LEGACY, "/a", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        (LEGACY, "/a", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, math.inf),
    ],
)
def test_the_quota_of_a_control_group(tmp_path, lines, group, files, expected):
    assert parallel.cpu_quota(control_group(tmp_path, lines, group, files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert parallel.cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.5, 2), (64, 3), (math.inf, 3)])
def test_cores_are_those_of_affinity_and_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5}, raising=False)
    monkeypatch.setattr(parallel, "cpu_quota", lambda: quota)
    assert parallel.cores() == expected
