"""How one logs in to the lab's hosts: keys made for this lab alone, an sshd in each host, the caller's SSH settings.

Nobody's own keys, ``known_hosts`` or accounts are read or changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from pathlib import Path

from livemig.core.errors import LabError
from livemig.lab.two_hosts.host import Host
from livemig.lab.two_hosts.layout import HOST_NAMES, Layout
from livemig.lab.two_hosts.namespaces import find, processes, run

SSH_PORT = 22
PRIVILEGE_SEPARATION_FOLDER = Path("/run/sshd")
"""Where sshd insists on an empty folder of root's; Debian's own service makes the same."""
_LISTENING_BOUND_S = 30.0
_POLL_S = 0.005


def home_folder(folder: Path) -> Path:
    """Set ``HOME`` to this, and SSH knows the lab's hosts as A and B."""
    return folder / "home"


def user_key_path(folder: Path) -> Path:
    """The private key that every account of both hosts accepts."""
    return home_folder(folder) / ".ssh/id_ed25519"


def known_hosts_path(folder: Path) -> Path:
    """Both hosts' keys, under every address they have."""
    return home_folder(folder) / ".ssh/known_hosts"


def ssh_config_path(folder: Path) -> Path:
    """For ``ssh -F``: the hosts by the names A and B."""
    return home_folder(folder) / ".ssh/config"


def host_key_path(folder: Path, host: str) -> Path:
    """A host's private key."""
    return folder / f"{host}.host_key"


def pid_path(folder: Path, host: str) -> Path:
    """Written by sshd once it listens."""
    return folder / f"{host}.sshd.pid"


def log_path(folder: Path, host: str) -> Path:
    """What a host's sshd has to say."""
    return folder / f"{host}.sshd.log"


async def make_keys(folder: Path, layout: Layout) -> None:
    """Makes the keys and every file that names them.

    Raises:
        LabError: When ssh-keygen is missing or fails.
    """
    user_key_path(folder).parent.mkdir(parents=True, mode=0o700)
    made = [_make_key(user_key_path(folder), f"livemig lab {layout.name}")]
    made += [_make_key(host_key_path(folder, host), f"livemig lab {layout.name} {host}") for host in HOST_NAMES]
    await asyncio.gather(*made)
    (folder / "authorized_keys").write_bytes(user_key_path(folder).with_suffix(".pub").read_bytes())
    known_hosts_path(folder).write_text("".join(_known(folder, layout, host) for host in HOST_NAMES))
    ssh_config_path(folder).write_text("".join(_client_config(folder, layout, host) for host in HOST_NAMES))
    (folder / "banner").write_text("Authorised use only.\nlivemig's lab: {} $( ` '\n")
    for host in HOST_NAMES:
        (folder / f"{host}.sshd_config").write_text(_server_config(folder, host))
    shadow = folder / "shadow"
    shadow.touch(mode=0o600)
    shadow.write_text("".join(f"{user.pw_name}:*:20000:0:99999:7:::\n" for user in pwd.getpwall()))


async def start_sshd(host: Host, folder: Path) -> None:
    """Starts a host's sshd and returns once it listens.

    Raises:
        LabError: When it does not; its own words are quoted.
    """
    path = pid_path(folder, host.name)
    path.unlink(missing_ok=True)
    config = folder / f"{host.name}.sshd_config"
    await run(*host.argv(find("sshd"), "-f", str(config), "-E", str(log_path(folder, host.name))))
    try:
        async with asyncio.timeout(_LISTENING_BOUND_S):
            while not path.exists():  # noqa: ASYNC110  # sshd tells nobody else
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        words = log_path(folder, host.name).read_text(errors="replace").strip().replace("\n", "; ")
        raise LabError(f"the sshd of host {host.name} does not listen: {words or 'it wrote nothing'}") from error


def sshd_pid(host: Host, folder: Path) -> int | None:
    """The pid of a host's sshd, or None when it does not run."""
    try:
        pid = int(pid_path(folder, host.name).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in processes(host.namespace) else None


def kill_sshd(host: Host, folder: Path) -> None:
    """Kills a host's sshd, and with it every session: what a client sees of a host whose sshd crashed."""
    listening = sshd_pid(host, folder)
    for pid in processes(host.namespace):
        with contextlib.suppress(OSError):
            if pid == listening or (Path(f"/proc/{pid}/comm").read_text().startswith("sshd")):
                os.kill(pid, signal.SIGKILL)


async def _make_key(path: Path, comment: str) -> None:
    await run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _known(folder: Path, layout: Layout, host: str) -> str:
    key = host_key_path(folder, host).with_suffix(".host_key.pub").read_text().split()
    names = [host, *_addresses(layout, host)]
    return f"{','.join(names)} {key[0]} {key[1]}\n"


def _addresses(layout: Layout, host: str) -> list[str]:
    found = [layout.management_address(host), layout.data_address(host)]
    return [*found, layout.management_address_6(host), layout.data_address_6(host)] if layout.with_ipv6 else found


def _client_config(folder: Path, layout: Layout, host: str) -> str:
    return f"""\
Host {host} {" ".join(_addresses(layout, host))}
  User root
  IdentityFile {user_key_path(folder)}
  IdentitiesOnly yes
  UserKnownHostsFile {known_hosts_path(folder)}
  StrictHostKeyChecking yes
Host {host}
  HostName {layout.management_address(host)}
"""


def _server_config(folder: Path, host: str) -> str:
    """Keys alone; without PAM, which would want this machine's login records. With a banner, as many sites have one."""
    return f"""\
Port {SSH_PORT}
HostKey {host_key_path(folder, host)}
PidFile {pid_path(folder, host)}
AuthorizedKeysFile {folder / "authorized_keys"}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
Banner {folder / "banner"}
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
