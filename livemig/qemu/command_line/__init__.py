"""A QEMU's command line, read by QEMU's rules and changed into its destination's. Pure: argv in, argv out."""

from livemig.qemu.command_line.destination import destination_line, given_line
from livemig.qemu.command_line.reading import (
    config_paths,
    device_ids,
    drops_privileges,
    launch_folder,
    memory_paths,
    tap_descriptors,
)
from livemig.qemu.command_line.request import DestinationLine, Image, PathMap, Request, Setting, parse_maps
from livemig.qemu.command_line.secrets import redacted, redacted_text, secrets_in

__all__ = [
    "DestinationLine",
    "Image",
    "PathMap",
    "Request",
    "Setting",
    "config_paths",
    "destination_line",
    "device_ids",
    "drops_privileges",
    "given_line",
    "launch_folder",
    "memory_paths",
    "parse_maps",
    "redacted",
    "redacted_text",
    "secrets_in",
    "tap_descriptors",
]
