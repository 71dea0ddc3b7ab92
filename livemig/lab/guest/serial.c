/* COM1: lines go into a ring and from there to the UART, so that a slow or absent reader stalls nothing. A line
 * for which the ring has no room is dropped whole and counted. */
#include "guest.h"

#define COM1 0x3F8
#define LINE_STATUS (COM1 + 5)
#define STATUS_RECEIVED 0x01
#define STATUS_SEND_EMPTY 0x20
#define FIFO_BYTES 16u
#define RING_BYTES 8192u
#define LINE_BYTES 320u
#define DRAIN_MS 200u

u32 serial_dropped_count;
u32 beat_count;

static char ring[RING_BYTES];
static u32 ring_written, ring_sent; /* run on; their difference is what waits */
static char line[LINE_BYTES];
static u32 line_length;
/* "B", right-aligned decimal digits, "\n": counting in place spares a division for each beat. */
static char beat_text[12];
static u32 beat_start;

static void put(char character)
{
	if (line_length < LINE_BYTES - 1)
		line[line_length++] = character;
}

void serial_initialise(void)
{
	outb(COM1 + 1, 0); /* no interrupts */
	outb(COM1 + 3, 0x80);
	outb(COM1 + 0, 1); /* 115200 baud; QEMU sends at once whatever this says */
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3); /* 8 bits, no parity */
	outb(COM1 + 2, 0xC1); /* FIFO, with the highest trigger level: QEMU hands over as many bytes at once */
	outb(COM1 + 4, 3);
	/* A byte that came before the FIFO was on is gone with it, but QEMU takes the next one only after a read. */
	inb(COM1);
	if (beat_count == 0) { /* not after waking */
		beat_text[10] = '0';
		beat_text[11] = '\n';
		beat_start = 10;
	}
}

/* What a reset cut is no line then, nor the beginning of ours. */
void serial_end_cut_line(void)
{
	line_length = 0;
	put('!');
	line_end();
}

bool serial_pump(void)
{
	u32 waiting = ring_written - ring_sent;
	if (waiting == 0 || !(inb(LINE_STATUS) & STATUS_SEND_EMPTY))
		return false;
	u32 from = ring_sent % RING_BYTES;
	u32 count = waiting < FIFO_BYTES ? waiting : FIFO_BYTES;
	if (count > RING_BYTES - from)
		count = RING_BYTES - from;
	ring_sent += count;
	const char *at = ring + from;
	__asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(COM1) : "memory");
	return ring_written != ring_sent;
}

/* Before the machine ends: sends what waits, for a bounded time. */
void serial_drain(void)
{
	u64 end = clock_now() + clock_span_ms(DRAIN_MS);
	while (ring_written != ring_sent && clock_now() < end)
		serial_pump();
}

int serial_read(void)
{
	return inb(LINE_STATUS) & STATUS_RECEIVED ? inb(COM1) : -1;
}

static bool enqueue(const char *text, u32 length, u32 room_needed)
{
	if (RING_BYTES - (ring_written - ring_sent) < room_needed) {
		serial_dropped_count++;
		return false;
	}
	for (u32 i = 0; i < length; i++)
		ring[(ring_written + i) % RING_BYTES] = text[i];
	ring_written += length;
	return true;
}

void serial_beat(void)
{
	beat_count++;
	u32 digit = 10;
	while (beat_text[digit] == '9') {
		beat_text[digit] = '0';
		digit--;
	}
	if (digit < beat_start) {
		beat_start = digit;
		beat_text[digit] = '0';
	}
	beat_text[digit]++;
	beat_text[beat_start - 1] = 'B';
	enqueue(beat_text + beat_start - 1, 13 - beat_start, 16);
}

static void put_key(const char *key)
{
	put(' ');
	while (*key)
		put(*key++);
	put('=');
}

void line_begin(char kind)
{
	line_length = 0;
	put(kind);
}

/* A value from outside may hold anything: only what can't be taken for another line or field goes out. */
void line_text(const char *key, const char *value)
{
	put_key(key);
	for (; *value; value++) {
		bool plain = (*value >= 'a' && *value <= 'z') || (*value >= '0' && *value <= '9') || *value == '_';
		put(plain ? *value : '?');
	}
}

void line_number(const char *key, u64 value)
{
	char digits[20];
	u32 count = 0;
	put_key(key);
	while (value >> 32) {
		u64 tenth = divide(value, 10);
		digits[count++] = (char)('0' + (u32)(value - tenth * 10));
		value = tenth;
	}
	u32 small = (u32)value;
	do {
		digits[count++] = (char)('0' + small % 10);
		small /= 10;
	} while (small);
	while (count)
		put(digits[--count]);
}

void line_address(const char *key, u32 value)
{
	put_key(key);
	put('0');
	put('x');
	for (int shift = 28; shift >= 0; shift -= 4)
		put("0123456789abcdef"[value >> shift & 15]);
}

bool line_end(void)
{
	line[line_length++] = '\n';
	return enqueue(line, line_length, line_length);
}

bool line_end_if_roomy(void)
{
	line[line_length++] = '\n';
	return enqueue(line, line_length, RING_BYTES / 2);
}
