"""What QMP answers when an inventory is taken: the parts of its replies that are read, and what they become."""

from __future__ import annotations

from typing import Any

import msgspec

from livemig.qemu.inventory import BlockNode, Cpu, Drive, Medium, MemoryDevice


class Text(msgspec.Struct, frozen=True, rename="kebab"):
    """Of ``x-query-ramblock``."""

    human_readable_text: str


class Named(msgspec.Struct, frozen=True):
    """Of ``qom-list``."""

    name: str
    type: str

    @property
    def child_type(self) -> str:
        """The type of what is there; empty for what is no child."""
        return self.type[6:-1] if self.type.startswith("child<") else ""


class Property(msgspec.Struct, frozen=True, rename="kebab"):
    """Of ``device-list-properties``."""

    name: str
    default_value: Any = None


class Version(msgspec.Struct, frozen=True):
    """Of ``query-version``."""

    major: int
    minor: int
    micro: int


class VersionReply(msgspec.Struct, frozen=True):
    """``query-version``."""

    qemu: Version


class Kvm(msgspec.Struct, frozen=True):
    """``query-kvm``."""

    enabled: bool


class Uuid(msgspec.Struct, frozen=True):
    """``query-uuid``."""

    uuid: str = msgspec.field(name="UUID")


class GenerationId(msgspec.Struct, frozen=True):
    """``query-vm-generation-id``."""

    guid: str


class MachineMemory(msgspec.Struct, frozen=True, rename="kebab"):
    """The machine's ``memory`` property."""

    size: int = 0
    slots: int = 0
    max_size: int = 0


class CpuPlace(msgspec.Struct, frozen=True, rename="kebab"):
    """Of ``query-hotpluggable-cpus``."""

    props: dict[str, int]
    type: str
    qom_path: str = ""

    def cpu(self, *, hotplugged: bool) -> Cpu:
        """Returns the place for a vCPU."""
        names = [name for name in sorted(self.props, key=_cpu_order) if name != "node-id"]
        place = ",".join(f"{name}={self.props[name]}" for name in names)
        return Cpu(
            place=place,
            type=self.type,
            present=bool(self.qom_path),
            node=self.props.get("node-id"),
            hotplugged=hotplugged,
        )


class FastCpu(msgspec.Struct, frozen=True, rename="kebab"):
    """Of ``query-cpus-fast``."""

    cpu_index: int
    qom_path: str


class FeatureWord(msgspec.Struct, frozen=True, rename="kebab"):
    """Of an x86 vCPU's ``feature-words``."""

    cpuid_input_eax: int
    cpuid_register: str
    features: int
    cpuid_input_ecx: int | None = None

    @property
    def name(self) -> str:
        """Such as ``CPUID[0x7,0].EBX``."""
        leaf = "" if self.cpuid_input_ecx is None else f",{self.cpuid_input_ecx}"
        return f"CPUID[{self.cpuid_input_eax:#x}{leaf}].{self.cpuid_register}"


class MemoryDeviceData(msgspec.Struct, frozen=True, rename="kebab"):
    """What ``query-memory-devices`` says of a device, whatever its type."""

    memdev: str = ""
    id: str = ""
    addr: int = 0
    memaddr: int = 0
    size: int = 0
    max_size: int = 0
    slot: int = -1
    node: int = 0
    hotplugged: bool = False


class MemoryDeviceReply(msgspec.Struct, frozen=True):
    """Of ``query-memory-devices``."""

    type: str
    data: MemoryDeviceData

    def memory_device(self) -> MemoryDevice:
        """Returns the memory device."""
        data = self.data
        return MemoryDevice(
            id=data.id,
            type=self.type,
            backend=data.memdev.rpartition("/")[2],
            size_bytes=data.max_size or data.size,
            address=data.addr or data.memaddr,
            slot=data.slot,
            node=data.node,
            hotplugged=data.hotplugged,
        )


class Image(msgspec.Struct, frozen=True, rename="kebab"):
    """Of a block node."""

    virtual_size: int
    format: str


class Cache(msgspec.Struct, frozen=True):
    """Of a block node."""

    direct: bool = False


class BlockNodeReply(msgspec.Struct, frozen=True, rename="kebab"):
    """Of ``query-named-block-nodes``, and what is inserted in ``query-block``."""

    drv: str
    file: str
    ro: bool
    image: Image
    node_name: str = ""
    cache: Cache = Cache()

    def medium(self) -> Medium:
        """Returns what the guest sees of it."""
        return Medium(file=self.file, format=self.image.format, size_bytes=self.image.virtual_size, read_only=self.ro)


class DriveReply(msgspec.Struct, frozen=True):
    """Of ``query-block``."""

    device: str
    removable: bool
    qdev: str = ""
    inserted: BlockNodeReply | None = None

    def drive(self) -> Drive:
        """Returns the block backend."""
        return Drive(
            name=self.device,
            node="" if self.inserted is None else self.inserted.node_name,
            path=self.qdev,
            removable=self.removable,
            medium=None if self.inserted is None else self.inserted.medium(),
        )


class GraphNode(msgspec.Struct, frozen=True):
    """Of ``x-debug-query-block-graph``."""

    id: int
    name: str


class GraphEdge(msgspec.Struct, frozen=True):
    """Of ``x-debug-query-block-graph``."""

    parent: int
    child: int
    name: str


class Graph(msgspec.Struct, frozen=True):
    """``x-debug-query-block-graph``."""

    nodes: tuple[GraphNode, ...] = ()
    edges: tuple[GraphEdge, ...] = ()


def block_nodes(replies: tuple[BlockNodeReply, ...], graph: Graph) -> dict[str, BlockNode]:
    """Returns the block graph by node name."""
    names = {node.id: node.name for node in graph.nodes}
    children: dict[str, dict[str, str]] = {}
    for edge in graph.edges:
        children.setdefault(names.get(edge.parent, ""), {})[edge.name] = names.get(edge.child, "")
    return {
        reply.node_name: BlockNode(
            name=reply.node_name,
            driver=reply.drv,
            file=reply.file,
            read_only=reply.ro,
            direct=reply.cache.direct,
            children=children.get(reply.node_name, {}),
        )
        for reply in replies
    }


def _cpu_order(name: str) -> int:
    order = ("drawer-id", "book-id", "socket-id", "die-id", "cluster-id", "module-id", "core-id", "thread-id")
    return order.index(name) if name in order else len(order)
