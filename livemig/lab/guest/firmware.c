/* fw_cfg: how much memory there is and the parameters. By DMA: under KVM each port access costs microseconds. */
#include "guest.h"

#define FW_CFG_DMA_HIGH 0x514
#define FW_CFG_DMA_LOW 0x518
#define KEY_RAM_SIZE 0x03
#define KEY_FILE_DIRECTORY 0x19
#define CONTROL_READ 2u
#define CONTROL_SELECT 8u
#define FILE_COUNT_MAX 128u
#define FILE_NAME_BYTES 56u
#define E820_ENTRY_MAX 64u
#define E820_RAM 1u

struct file_entry {
	u32 size_be;
	u16 select_be;
	u16 reserved;
	char name[FILE_NAME_BYTES];
};
struct e820_entry {
	u64 address, length;
	u32 type;
} __attribute__((packed));

static struct {
	u32 control_be, length_be;
	u32 address_high_be, address_low_be;
} access __attribute__((aligned(16)));
static struct {
	u32 count_be;
	struct file_entry entry[FILE_COUNT_MAX];
} directory;
static struct e820_entry memory_map[E820_ENTRY_MAX];

static void read_item(u32 key, void *to, u32 size)
{
	access.control_be = __builtin_bswap32(key << 16 | CONTROL_SELECT | CONTROL_READ);
	access.length_be = __builtin_bswap32(size);
	access.address_high_be = 0;
	access.address_low_be = __builtin_bswap32((u32)to);
	__asm__ volatile("" : : : "memory");
	outl(FW_CFG_DMA_HIGH, 0);
	outl(FW_CFG_DMA_LOW, __builtin_bswap32((u32)&access)); /* QEMU copies before this returns */
	__asm__ volatile("" : : : "memory");
}

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Returns the file's size, 0 if it isn't there; never writes more than size_limit. */
u32 firmware_read_file(const char *name, void *to, u32 size_limit)
{
	if (directory.count_be == 0)
		read_item(KEY_FILE_DIRECTORY, &directory, sizeof directory);
	u32 count = __builtin_bswap32(directory.count_be);
	for (u32 i = 0; i < count && i < FILE_COUNT_MAX; i++) {
		struct file_entry *file = &directory.entry[i];
		if (!same_text(file->name, name))
			continue;
		u32 size = __builtin_bswap32(file->size_be);
		read_item(__builtin_bswap16(file->select_be), to, size < size_limit ? size : size_limit);
		return size;
	}
	return 0;
}

u64 firmware_ram_bytes(void)
{
	u64 size = 0;
	read_item(KEY_RAM_SIZE, &size, sizeof size);
	return size;
}

/* The RAM that begins at 0 and ends below the hole under 4 GiB: what a program without paging reaches. */
u32 firmware_low_ram_bytes(void)
{
	u32 size = firmware_read_file("etc/e820", memory_map, sizeof memory_map);
	for (u32 i = 0; i < size / sizeof(struct e820_entry) && i < E820_ENTRY_MAX; i++)
		if (memory_map[i].type == E820_RAM && memory_map[i].address == 0)
			return (u32)memory_map[i].length;
	return 0;
}
