"""What the help says below the options: units, exit codes, examples. Texts alone."""

EXAMPLES = """\b
Examples:
  # a busy guest moves between two QEMUs on this machine, shown step by step
  livemig demo
\b
  # move your own guest; b.qmp is a QEMU that waits, or one is launched there
  livemig run --src-qmp /run/vm/a.qmp --dst-qmp /run/vm/b.qmp
\b
  # stand still at most 100 ms, send at most 1 Gbit/s, give up after 5 minutes
  livemig run --src-qmp a.qmp --dst-qmp b.qmp \\
      --downtime-limit 100ms --bandwidth 1Gbit/s --deadline 5min
"""

UNITS = """\b
Units (a number without one is refused):
  times  us, ms, s, min, h
  sizes  B, kB, MB, GB, TB; KiB, MiB, GiB, TiB
  rates  a size a second (100MiB/s, 1GB/s), or bit/s, kbit/s, Mbit/s, Gbit/s
"""

EXIT_CODES = """\b
Exit codes:
  0    completed: the guest runs at the destination
  1    failed: QEMU, the link or the destination failed; the guest is at the source as before
  2    refused: nothing was touched
  3    cancelled: by the deadline or a closed output; the guest is at the source as before
  130  cancelled by Ctrl-C, SIGTERM or SIGHUP, likewise
  4    unknown: a person is needed; the last lines say what is known
  5    the guest shut itself down while it moved
"""

RUN_EPILOG = f"""\b
ADDR is where a QEMU's QMP monitor is: PATH, unix:PATH, ssh://[USER@]HOST[:PORT]/PATH
or tcp:HOST:PORT. By SSH nothing is installed on the host; keys and known hosts are those of
your ssh.
Both QEMUs need one of their own: -qmp unix:PATH,server=on,wait=off. One that waits is
started with the source's options and with -S -incoming defer.

{UNITS}

{EXIT_CODES}

\b
Examples:
  # with the defaults
  livemig run --src-qmp /run/vm/a.qmp --dst-qmp /run/vm/b.qmp
\b
  # to another host, launched there; its memory goes by TLS with a key made for this move
  livemig run --src-qmp /run/vm/a.qmp --dst-qmp ssh://root@hostb/run/vm/a.qmp
\b
  # at most 1 Gbit/s; a guest too busy to move within 5 minutes is stopped then, for the rest
  livemig run --src-qmp a.qmp --dst-qmp b.qmp --bandwidth 1Gbit/s \\
      --deadline 5min --at-deadline pause
\b
  # for a script: the last line says how it ended and where the guest is
  livemig run --src-qmp a.qmp --dst-qmp b.qmp --json | tail -n 1 | jq -r .running_on

Every option can stand in a TOML file (--config) under its name, as in downtime-limit = "100ms", and in a variable,
as in LIVEMIG_DOWNTIME_LIMIT=100ms. The command line goes before the variable, and that before the file.

Ctrl-C before the switchover leaves the guest at the source; after it, at the destination.
"""

PLAN_EPILOG = f"""{UNITS}

\b
Exit codes:
  0  nothing speaks against it
  2  something does: one line each, with what to do

\b
Examples:
  # can this guest leave, and over which link?
  livemig plan --src-qmp /run/vm/a.qmp --bandwidth 1Gbit/s
\b
  # to the QEMU that waits at b.qmp, or to one that would be launched there
  livemig plan --src-qmp /run/vm/a.qmp --dst-qmp /run/vm/b.qmp
\b
  # for a script
  livemig plan --src-qmp a.qmp --dst-qmp b.qmp --json | jq -r '.refusals[]'
"""

REPLAY_EPILOG = """\b
Exit codes:
  0  every decision and forecast came out as recorded
  1  at least one came out otherwise
  2  the trace can't be read
\b
Examples:
  livemig run --src-qmp a.qmp --dst-qmp b.qmp --trace run.trace
  livemig replay run.trace
  livemig replay run.trace --policy proxmox      # what Proxmox's rule would have done
"""

DEMO_EPILOG = f"""{UNITS}

\b
Exit codes: those of `livemig run`, and 1 when the guest finds its memory damaged.
\b
Examples:
  livemig demo
\b
  # a tighter limit and a slower link: more rounds
  livemig demo --downtime-limit 50ms --bandwidth 100MiB/s
\b
  # more than the link can send: it does not converge, and is cancelled after 10 s
  livemig demo --dirty-rate 400MiB/s --bandwidth 50MiB/s --deadline 10s
"""

COMPLETION_EPILOG = """\b
Examples:
  # for this shell alone
  source <(livemig completion bash)
\b
  # for good
  livemig completion bash > ~/.local/share/bash-completion/completions/livemig
  livemig completion zsh > ~/.zfunc/_livemig      # a folder in $fpath
  livemig completion fish > ~/.config/fish/completions/livemig.fish

It completes the installed command `livemig`, not `python -m livemig`.
"""

LAB_EPILOG = """\b
Examples:
  sudo livemig lab up --rate 1Gbit/s
  sudo livemig lab status
  sudo livemig lab shell A
  sudo livemig lab shell client -- ping -c 3 198.19.0.2
  sudo livemig lab down
"""
