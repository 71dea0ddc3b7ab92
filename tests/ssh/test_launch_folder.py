"""Two livemigs that launch at one place of a host at the same moment: one has it, whoever else is refused."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import pytest

from livemig.core.errors import RefusedError
from livemig.engine.host_pool import HostPool
from livemig.hosts.host import Host
from livemig.hosts.launch_folder import LaunchClaim
from livemig.qemu.address import Address
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu
OWNER = (os.geteuid(), os.getegid())


async def host_of(between: Between, stack: AsyncExitStack) -> Host:
    """Logs in anew at the second host, as another livemig does."""
    pool = HostPool()
    stack.push_async_callback(pool.close)
    return await pool.host_of(Address.parse(between.address(between.lab.b)))


async def test_one_of_many_gets_the_folder(between: Between) -> None:
    """Whether nothing is there or a folder that is left over; one that is held, or listened in, is nobody else's."""
    folder = between.lab.b.private_folder_outside / "b.qmp.livemig"
    async with AsyncExitStack() as stack:
        hosts = [await host_of(between, stack) for _ in range(4)]
        for turn in range(3):
            ids = [f"{turn}{number}" for number in range(len(hosts))]
            made = await asyncio.gather(
                *(host.make_launch_folder(folder, OWNER, run_id) for host, run_id in zip(hosts, ids, strict=True)),
                return_exceptions=True,
            )
            assert sorted(type(each).__name__ for each in made) == [*["FileExistsError"] * 3, "NoneType"], made
            winner = made.index(None)
            claims = [await host.launch_claim(folder) for host in hosts]
            assert claims == [LaunchClaim(run_id=ids[winner], is_held=True)] * 4
            assert {path.name for path in folder.iterdir()} == {".livemig", "stderr"}
            await hosts[winner - 1].remove_launch_folder(folder, ids[winner - 1])
            assert folder.exists()
            await hosts[winner].release_launch_folder(folder)  # the next turn finds it left over
            assert await hosts[0].launch_claim(folder) == LaunchClaim(run_id=ids[winner], is_held=False)
        listener = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), folder / "spare.qmp")
        with pytest.raises(FileExistsError, match="another livemig"):
            await hosts[0].make_launch_folder(folder, OWNER, "x")
        await hosts[0].remove_launch_folder(folder)
        assert folder.exists()
        listener.close()
        await hosts[0].remove_launch_folder(folder)
        assert [path.name for path in folder.parent.iterdir() if path.name.startswith(folder.name)] == []


async def test_a_folder_of_a_livemig_that_died_is_replaced(between: Between) -> None:
    """Its shell on the host has ended with its connection, and with that its hold."""
    folder = between.lab.b.private_folder_outside / "b.qmp.livemig"
    async with AsyncExitStack() as stack, AsyncExitStack() as dying:
        first, second = await host_of(between, dying), await host_of(between, stack)
        await first.make_launch_folder(folder, OWNER, "a")
        with pytest.raises(FileExistsError):
            await second.make_launch_folder(folder, OWNER, "b")
        await dying.aclose()
        while True:
            claim = await second.launch_claim(folder)
            if claim is not None and not claim.is_held:
                break
            await asyncio.sleep(0.02)
        await second.make_launch_folder(folder, OWNER, "b")
        assert await second.launch_claim(folder) == LaunchClaim(run_id="b", is_held=True)


async def test_a_held_place_is_not_looked_at(between: Between) -> None:
    """Nor moved to: the livemig that holds it is about to connect to its QEMU, which takes one client."""
    await between.start()
    folder = between.lab.b.private_folder_outside / "vm.qmp.livemig"
    async with AsyncExitStack() as stack:
        host = await host_of(between, stack)
        await host.make_launch_folder(folder, OWNER, "a")
        with pytest.raises(RefusedError, match="another livemig is about to launch"):
            await between.migrate()
        await host.remove_launch_folder(folder, "a")
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()
