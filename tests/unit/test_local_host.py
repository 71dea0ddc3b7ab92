"""A process is held so that its end can't be missed, nor another be taken for it. Only children of these tests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livemig.hosts.local import LocalProcess

THREADED = (
    "import threading; threading.Thread(target=lambda: (print(threading.get_native_id(), flush=True), input())).start()"
)
"""Prints the id of a thread that is not the first one."""


def started_as(folder: Path, name: str) -> subprocess.Popen[str]:
    """A process by that name, with a second thread."""
    program = folder / name
    program.symlink_to(Path(sys.executable).resolve())
    command = [str(program), "-I", "-S", "-c", THREADED]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def thread_of(process: subprocess.Popen[str]) -> int:
    """The id that it prints."""
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that goes by QEMU's name and lives until somebody ends it."""
    with started_as(tmp_path, "qemu-stand-in") as process:
        yield process
        process.kill()


@pytest.fixture
def held(child: subprocess.Popen[str]) -> Iterator[LocalProcess]:
    """The child, held."""
    process = LocalProcess(child.pid)
    yield process
    process.close()


def test_a_process_is_found_by_any_of_its_threads(child):
    """QEMU names threads of vCPUs, not its pid."""
    thread_id = thread_of(child)
    assert thread_id != child.pid
    process = LocalProcess.of_thread(thread_id)
    assert process is not None
    assert process.pid == child.pid
    process.close()


def test_a_stranger_is_not_taken_for_qemu(child):
    """A thread id from another pid namespace names somebody else here, by whatever name, who must not be killed."""
    here, there = socket.socketpair()
    with here, there:
        assert LocalProcess.of_thread(thread_of(child), here) is None


def test_a_process_that_can_not_be_seen_is_none():
    """An id of another machine, or of one that has ended, names nobody."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert LocalProcess.of_thread(child.pid) is None
    assert LocalProcess.of_thread(2**30) is None
    assert LocalProcess.of_thread(-1) is None


def test_holding_nobody_raises():
    """There must be a process to hold."""
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError):
        LocalProcess(child.pid)


def test_a_running_process_is_alive(held):
    """And stays so when it is asked."""
    assert held.alive
    assert held.alive


def test_its_owner_is_the_user_it_acts_as(held):
    """A child is of this user and group."""
    assert held.owner == (os.geteuid(), os.getegid())


def test_a_zombie_has_ended(child, held):
    """A QEMU that its parent has not collected runs nothing any more; it is still found, as ended."""
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not held.alive
    found = LocalProcess.of_thread(child.pid)
    assert found is not None
    assert not found.alive
    found.close()


def test_a_collected_process_has_ended(child, held):
    """Also once its pid names nobody."""
    child.kill()
    child.wait()
    assert not held.alive


async def test_kill_ends_it_for_certain(child, held):
    """No request to quit: SIGKILL; again is no error, neither as a zombie nor once it is collected."""
    held.kill()
    assert await held.wait_gone(5)
    held.kill()
    assert child.wait() == -signal.SIGKILL
    held.kill()


async def test_waiting_is_bounded(held):
    """A process that does not end is told so at the bound, and lives on."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    assert not await held.wait_gone(0.05)
    assert 0.04 <= loop.time() - begun_s < 2
    assert held.alive


async def test_waiting_ends_with_the_process(child, held):
    """At its end, not at the bound."""
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(held.wait_gone(30))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    begun_s = loop.time()
    child.kill()
    assert await waiting
    assert loop.time() - begun_s < 5


async def test_waiting_for_one_that_has_ended_is_over_at_once(child, held):
    """Its end was before the waiting."""
    child.kill()
    child.wait()
    assert await held.wait_gone(0.5)


async def test_a_reused_pid_is_never_taken_for_it(child, held):
    """The pid goes to somebody else: the one that was held stays ended, and the other is not killed for it."""
    child.kill()
    child.wait()
    with subprocess.Popen(["sleep", "60"]) as other:
        held.pid = other.pid  # what a reuse of its pid would come to
        assert not held.alive
        held.kill()
        assert await held.wait_gone(0.5)
        assert other.poll() is None
        other.kill()


def test_letting_go_harms_nobody(child):
    """The process goes on; letting go twice is no error."""
    process = LocalProcess(child.pid)
    process.close()
    process.close()
    assert child.poll() is None


def test_a_process_let_go_is_not_said_to_have_ended(child):
    """Only a proof counts: what is no longer held must not read as gone."""
    process = LocalProcess(child.pid)
    process.close()
    with pytest.raises(ValueError, match="file descriptor"):
        assert process.alive


def test_the_hold_is_not_handed_to_children(held):
    """A process started later must not keep it open."""
    assert not os.get_inheritable(held._descriptor)
