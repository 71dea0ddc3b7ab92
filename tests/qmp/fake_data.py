"""What a QEMU 10.0.2 answers to questions whose answer does not change."""

from typing import Any

VERSION: dict[str, Any] = {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "fake"}

CAPABILITIES = tuple(
    "xbzrle rdma-pin-all auto-converge zero-blocks events postcopy-ram x-colo release-ram return-path"  # noqa: SIM905
    " pause-before-switchover multifd dirty-bitmaps postcopy-blocktime late-block-activate x-ignore-shared"
    " validate-uuid background-snapshot zero-copy-send postcopy-preempt switchover-ack dirty-limit mapped-ram".split()
)

PARAMETERS: dict[str, Any] = {
    "cpu-throttle-tailslow": False,
    "xbzrle-cache-size": 67108864,
    "cpu-throttle-initial": 20,
    "announce-max": 550,
    "direct-io": False,
    "avail-switchover-bandwidth": 0,
    "zero-page-detection": "multifd",
    "multifd-qatzip-level": 1,
    "multifd-channels": 2,
    "mode": "normal",
    "multifd-zstd-level": 1,
    "announce-initial": 50,
    "downtime-limit": 300,
    "tls-authz": "",
    "vcpu-dirty-limit": 1,
    "multifd-compression": "none",
    "announce-rounds": 5,
    "announce-step": 100,
    "tls-creds": "",
    "x-vcpu-dirty-limit-period": 1000,
    "multifd-zlib-level": 1,
    "max-cpu-throttle": 99,
    "max-postcopy-bandwidth": 0,
    "tls-hostname": "",
    "throttle-trigger-threshold": 50,
    "max-bandwidth": 134217728,
    "x-checkpoint-delay": 20000,
    "cpu-throttle-increment": 10,
}

SETTABLE_PARAMETERS = {*PARAMETERS, "block-bitmap-mapping"}

SCHEMA: list[dict[str, Any]] = [
    {"name": "migrate-incoming", "meta-type": "command", "arg-type": "100", "ret-type": "0"},
    {"name": "migrate", "meta-type": "command", "arg-type": "101", "ret-type": "0"},
    {"name": "quit", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
    {"name": "0", "meta-type": "object", "members": []},
    {
        "name": "100",
        "meta-type": "object",
        "members": [
            {"name": "uri", "default": None, "type": "str"},
            {"name": "exit-on-error", "default": None, "type": "bool"},
        ],
    },
    {
        "name": "101",
        "meta-type": "object",
        "members": [{"name": "uri", "type": "str"}, {"name": "resume", "default": None, "type": "bool"}],
    },
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
    {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
]
