"""What a process of ours asks of the C library's memory."""

import os
import subprocess
import sys

import pytest

from inspector_pipeline import allocation
from inspector_pipeline.allocation import keep_freed_memory, return_freed_memory

OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@pytest.fixture
def asked(monkeypatch):
    """Note what is asked of the C library, which does nothing."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(allocation, "_of_glibc", lambda name: lambda *args: calls.append((name, *args)) or 1)
    return calls


def test_freed_memory_is_kept_up_to_a_bound(asked):
    assert keep_freed_memory()
    assert asked == [("mallopt", -3, 32 * 2**20), ("mallopt", -1, 256 * 2**20)]


@pytest.mark.parametrize("name", OWN)
def test_settings_of_the_user_stay(name, asked, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
    assert not asked


def test_where_the_c_library_has_no_such_function_nothing_is_done(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    assert not keep_freed_memory()
    return_freed_memory()


def test_freed_memory_is_given_back(asked):
    return_freed_memory()
    assert asked == [("malloc_trim", 0)]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings are Linux's")
def test_the_c_library_takes_the_settings():
    code = "import inspector_pipeline.allocation as a; assert a.keep_freed_memory(); a.return_freed_memory()"
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
