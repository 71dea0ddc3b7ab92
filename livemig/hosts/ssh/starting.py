"""Starts a program on a host so that it outlives livemig, by a POSIX shell and what util-linux has.

What the host lacks for taking on the surroundings is a reason not to start, or is seen afterwards at the process.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from itertools import pairwise

from livemig.hosts.process import Surroundings
from livemig.hosts.ssh.link import Link
from livemig.hosts.start import Program

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIMIT_NAMES = {
    0: "cpu",
    1: "fsize",
    2: "data",
    3: "stack",
    4: "core",
    5: "rss",
    6: "nproc",
    7: "nofile",
    8: "memlock",
    9: "as",
}
"""What util-linux's prlimit calls Linux's limits."""
_BOUNDED = 'bound=$(command -v timeout) && bound="$bound 4"; $bound'
"""Put before a command, it ends that within 4 s where the host has `timeout` (coreutils, busybox): a program that says
nothing would else cost the shell."""
_MACHINE_OPTIONS = frozenset({"-machine", "--machine", "-M"})
_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")
_KVM_ONLY = re.compile(r"(^|,)(accel=)?kvm($|,)")


async def why_no_start(link: Link, host: str, user_id: int, program: Program) -> tuple[str, ...]:
    """Returns what is missing on the host for a start as it is meant, or not allowed, one line each."""
    surroundings = program.surroundings
    found = await link.run_parts(
        {
            "folder": f"cd {_q(surroundings.cwd)}",
            "executable": f"[ -x {_q(program.executable)} ]",
            "version": f"{_BOUNDED} {_q(program.executable)} --version",
            "machines": f"{_BOUNDED} {_q(program.executable)} -machine help",
            "setsid": "command -v setsid",
            "setpriv": "command -v setpriv",
            "kvm": "[ -c /dev/kvm ]",
        }
    )
    reasons = []
    if found["folder"].status != 0:
        reasons.append(f"{host} has no folder {surroundings.cwd}, in which the source runs: make it there")
    if found["executable"].status != 0:
        reasons.append(f"{host} has no program {program.executable}: install that QEMU there, or give --dst-command")
    elif found["version"].status != 0:
        reasons.append(
            f"{program.executable} does not start at {host} (`--version` fails, or takes more than 4 s): see what it "
            "says there"
        )
    else:
        reasons += _why_no_machine(host, program, found["version"].text, found["machines"].text)
    if found["setsid"].status != 0:
        reasons.append(f"{host} has no setsid (util-linux, busybox): install it there")
    if user_id not in (surroundings.user, 0):
        reasons.append(
            f"the source runs as user {surroundings.user}, and you are user {user_id} at {host}: log in as that user, "
            "or as root"
        )
    elif surroundings.user != user_id and found["setpriv"].status != 0:
        reasons.append(f"{host} has no setpriv (util-linux) to start as user {surroundings.user}: install it there")
    if _needs_kvm(program.argv) and found["kvm"].status != 0:
        reasons.append(f"{host} has no /dev/kvm, which the source uses: load its kvm module, or choose another host")
    return tuple(reasons)


async def start(link: Link, user_id: int, program: Program, stderr_path: str) -> int:
    """Starts a program; returns its pid. Whether it could become the program shows in what it wrote.

    Raises:
        OSError: When the shell could not even begin.
    """
    mark = f"end-{secrets.token_hex(8)}"
    script = "\n".join(
        [
            "scope=''",
            'if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ] && command -v systemd-run >/dev/null; then',
            "  scope='systemd-run --scope --quiet --collect --'",
            "fi",
            f"$scope setsid env -i PATH={_PATH} sh >/dev/null 2>>{_q(stderr_path)} <<'{mark}' &",
            *_becoming(user_id, program),
            mark,
            "echo $!",
            "sleep 0.05 2>/dev/null || sleep 1",
        ]
    )
    answer = await link.run(script)
    if answer.status != 0 or not answer.text.isdigit():
        raise OSError(answer.text or "the shell there could not start it")
    return int(answer.text)


def _becoming(user_id: int, program: Program) -> Iterator[str]:
    """What a fresh shell does to become the program, its pid kept."""
    surroundings = program.surroundings
    yield "livemig_setpriv=$(command -v setpriv)"
    yield f"cd {_q(surroundings.cwd)} || exit 126"
    for number, (soft, hard) in surroundings.limits.items():
        if number in _LIMIT_NAMES:
            yield f"prlimit --pid $$ --{_LIMIT_NAMES[number]}={_limit(soft)}:{_limit(hard)} 2>/dev/null"
    yield f"renice {surroundings.nice} $$ >/dev/null 2>&1"
    yield f"echo {surroundings.oom_score_adj} 2>/dev/null >/proc/self/oom_score_adj"
    yield f"umask {surroundings.umask:04o}"
    yield "unset PATH"
    for name, value in surroundings.environment.items():
        if _VARIABLE.fullmatch(name):
            yield f"export {name}={_q(value)}"
    command = " ".join(_q(each) for each in (program.executable, *program.argv[1:]))
    yield f"exec {_privileges(user_id, surroundings)}{command} </dev/null"


def _privileges(user_id: int, surroundings: Surroundings) -> str:
    if user_id != 0:
        return ""
    if (surroundings.user, surroundings.group, surroundings.groups) == (0, 0, ()):
        return ""
    groups = ",".join(str(group) for group in surroundings.groups)
    chosen = f"--groups {groups}" if groups else "--clear-groups"
    return f'"$livemig_setpriv" --reuid {surroundings.user} --regid {surroundings.group} {chosen} -- '


def _limit(value: int) -> str:
    return "unlimited" if value == -1 else str(value)


def _why_no_machine(host: str, program: Program, version: str, listed: str) -> Iterator[str]:
    """An older QEMU does not know the newer one's machine types: it would end at once."""
    wanted = _machine_type(program.argv)
    known = {line.split()[0] for line in listed.splitlines() if line.strip()}
    if wanted and known and wanted not in known:
        number = _VERSION.search(version)
        named = f"QEMU {number[1]}, which has no machine {wanted}" if number else f"a QEMU without machine {wanted}"
        yield f"{program.executable} at {host} is {named}: install one there that has it, or choose another host"


def _machine_type(argv: tuple[str, ...]) -> str:
    """What the command line says; empty where it says it in another way."""
    values = [value for name, value in pairwise(argv) if name in _MACHINE_OPTIONS]
    first = values[-1].partition(",")[0] if values else ""
    return first.removeprefix("type=") if "=" not in first.removeprefix("type=") else ""


def _needs_kvm(argv: tuple[str, ...]) -> bool:
    if any(each in ("-enable-kvm", "--enable-kvm") for each in argv):
        return True
    options = {"-accel", "--accel", *_MACHINE_OPTIONS}
    return any(name in options and _KVM_ONLY.search(value) for name, value in pairwise(argv))


def _q(text: str) -> str:
    return shlex.quote(text)
