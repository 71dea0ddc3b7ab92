"""A QEMU of this machine that runs in a host of the lab. Starts nothing."""

from __future__ import annotations

from livemig.lab.two_hosts.host import Host


def qemu_in(host: Host, qemu: str = "qemu-system-x86_64") -> str:
    """Makes a program that becomes QEMU in a host: what it is given with paths of outside, it gets with those in there.

    Returns:
        The program's path, for `livemig.lab.machine.MachineSettings`.
    """
    path = host.folder / f"qemu-{host.name}"
    path.write_text(
        "#!/bin/bash\n"
        f"outside={host.private_folder_outside} inside={host.private_folder}\n"
        f'exec {" ".join(host.argv())} {qemu} "${{@//$outside/$inside}}"\n'
    )
    path.chmod(0o755)
    return str(path)
