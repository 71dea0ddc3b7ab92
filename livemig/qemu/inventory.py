"""What one QEMU is made of, as far as a migration stream or the guest can tell. Pure data, made by `inventory_query`.

Host-side things (paths of sockets, names of backends) are in it only as far as a remedy needs them.
"""

from __future__ import annotations

import msgspec


class RamBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of memory that the stream names.

    Attributes:
        name: Such as ``pc.ram`` or ``0000:00:02.0/vga.vram``.
        used_bytes: Its size; QEMU's word is "used".
        total_bytes: What it may grow to when a migration arrives. Larger than `used_bytes` for ACPI tables only.
        page_size: Its backing's page size as QEMU writes it, such as ``4 KiB``.
    """

    name: str
    used_bytes: int
    total_bytes: int
    page_size: str

    @property
    def resizable(self) -> bool:
        """Whether an arriving migration may change its size."""
        return self.total_bytes > self.used_bytes


class MemoryDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A plugged piece of memory: a dimm, an NVDIMM, a virtio-mem.

    Attributes:
        id: Its id, or empty.
        type: QEMU's word: ``dimm``, ``nvdimm``, ``virtio-mem``, ``virtio-pmem``.
        backend: The memory backend's id.
        size_bytes: Its size, of a virtio-mem the largest.
        address: Where the guest finds it.
        slot: Its slot, -1 where there are none.
        node: Its NUMA node.
        hotplugged: Whether it was plugged into a machine that was complete already.
    """

    id: str
    type: str
    backend: str
    size_bytes: int
    address: int
    slot: int = -1
    node: int = 0
    hotplugged: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's memory.

    Attributes:
        base_bytes: ``-m``, without what was plugged.
        slots: ``-m slots=``.
        max_bytes: ``-m maxmem=``.
        main_block: The name of the RAM block that holds it.
        blocks: All RAM blocks with a name.
        devices: What was plugged.
        backends: Memory backends by id, and their types.
    """

    base_bytes: int = 0
    slots: int = 0
    max_bytes: int = 0
    main_block: str = "pc.ram"
    blocks: tuple[RamBlock, ...] = ()
    devices: tuple[MemoryDevice, ...] = ()
    backends: dict[str, str] = {}


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """A place for a vCPU.

    Attributes:
        place: Its address as ``-device`` takes it: ``socket-id=0,core-id=1,thread-id=0``.
        type: QEMU's type of the vCPU there, or of the one that could be plugged.
        present: Whether there is one.
        node: Its NUMA node, None without NUMA.
        hotplugged: Whether it was plugged into a machine that was complete already.
    """

    place: str
    type: str
    present: bool
    node: int | None = None
    hotplugged: bool = False


class Cpus(msgspec.Struct, frozen=True, kw_only=True):
    """The vCPUs.

    Attributes:
        places: Where vCPUs are or can be plugged, all `maxcpus` of them.
        topology: ``-smp``: sockets, cores, threads, maxcpus.
        features: Each CPUID word that the guest sees, by its name such as ``CPUID[7].EBX``. Empty where QEMU has none.
        properties: What else the guest sees of the model: vendor, family, address bits.
        tsc_hz: The frequency of its time stamp counter; 0 when unknown.
    """

    places: tuple[Cpu, ...] = ()
    topology: dict[str, int] = {}
    features: dict[str, int] = {}
    properties: dict[str, str] = {}
    tsc_hz: int = 0


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device on a bus, a virtio device together with its transport.

    Attributes:
        place: Where it is, never by what the guest programmed: ``0000:00:02.0``, ``0000:00:05.0/scsi 0:0:1``. It is
            what the stream calls a PCI device.
        parent: The place of the device that has its bus; empty at the root.
        type: QEMU's type.
        id: Its id, or empty.
        bus: Its bus's name.
        bus_type: Its bus's type.
        address: Its address there as ``-device`` takes it, by property.
        pci_id: Vendor, device and subsystem; empty when it is no PCI device.
        properties: All of its properties as text.
        built_in: Whether it came with the machine or an older option, not by ``-device`` or ``device_add``.
        hotplugged: Whether it was plugged into a machine that was complete already.
    """

    place: str
    type: str
    parent: str = ""
    id: str = ""
    bus: str = ""
    bus_type: str = ""
    address: dict[str, str] = {}
    pci_id: str = ""
    properties: dict[str, str] = {}
    built_in: bool = True
    hotplugged: bool = False

    @property
    def name(self) -> str:
        """What people call it: its id, else its type."""
        return self.id or self.type

    @property
    def title(self) -> str:
        """Its name, type and place, for a sentence."""
        kind = f" ({self.type})" if self.id else ""
        return f"device {self.name}{kind} at {self.place}"


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a drive.

    Attributes:
        file: The image as QEMU names it.
        format: Its format, such as ``qcow2``.
        size_bytes: What the guest sees.
        read_only: Whether the guest may write.
    """

    file: str
    format: str
    size_bytes: int
    read_only: bool


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """A device's block backend.

    Attributes:
        name: Its name (``-drive id=``), or empty.
        node: The name of the node in it, or empty.
        path: The QOM path of its device, or empty.
        removable: Whether the medium can be taken out.
        medium: What is in it, or None.
    """

    name: str
    node: str
    path: str
    removable: bool
    medium: Medium | None


class BlockNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the block graph.

    Attributes:
        name: Its node name; a leading ``#`` says that QEMU made it up.
        driver: Its driver.
        file: What QEMU calls its file.
        read_only: Whether it is read only.
        direct: Whether the host's page cache is bypassed.
        children: Names of the nodes it stands on, by their role.
    """

    name: str
    driver: str
    file: str
    read_only: bool
    direct: bool
    children: dict[str, str] = {}


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network backend.

    Attributes:
        id: Its id.
        type: Such as ``tap``.
        options: What QEMU says of it, as text.
    """

    id: str
    type: str
    options: dict[str, str] = {}


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """One QEMU.

    Attributes:
        version: Major, minor, micro.
        machine_type: The concrete type, such as ``pc-i440fx-10.0``.
        accelerator: ``kvm`` or ``tcg``; whatever is not KVM counts as ``tcg``.
        memory: The guest's memory.
        cpus: Its vCPUs.
        uuid: ``-uuid``.
        generation_id: The VM generation id, empty without that device.
        devices: All devices on buses; None when this QEMU does not tell.
        loose_devices: Types of devices given by ``-device`` that are on no bus, by id, or by type and a number.
        drives: The block backends.
        nodes: The block graph by node name, asked for only when a hot-plugged device stands on it.
        networks: The network backends by id.
        defaults: For each type of a hot-plugged device, its properties' defaults as text.
        capabilities: Migration capabilities it knows.
    """

    version: tuple[int, int, int]
    machine_type: str
    accelerator: str
    memory: Memory = Memory()
    cpus: Cpus = Cpus()
    uuid: str = ""
    generation_id: str = ""
    devices: tuple[Device, ...] | None = ()
    loose_devices: dict[str, str] = {}
    drives: tuple[Drive, ...] = ()
    nodes: dict[str, BlockNode] = {}
    networks: dict[str, Network] = {}
    defaults: dict[str, dict[str, str]] = {}
    capabilities: frozenset[str] = frozenset()

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(str(part) for part in self.version)
