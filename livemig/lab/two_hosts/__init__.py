"""Two hosts, a client and the networks between them, on one machine in network namespaces.

`layout` says what there is, `namespaces` is the one place that runs `ip` and `tc`, `login` makes keys and sshd
configurations, `host` runs commands in a namespace, `record` remembers on disk what there is, `lab` joins them.
"""

from livemig.lab.two_hosts.host import Host, Namespace
from livemig.lab.two_hosts.lab import TwoHosts

__all__ = ["Host", "Namespace", "TwoHosts"]
