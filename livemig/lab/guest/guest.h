/* The built-in guest: what its files share. docs/guest.md says what it does and how its lines read.
 *
 * One program on the bare machine: 32-bit protected mode, no paging, one CPU. Code and constants
 * stay in the firmware ROM, so that lost memory can't damage what looks for lost memory.
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)

#define PAGE_BYTES 4096u
#define PAGE_WORDS 1024u
#define BODY_FIRST_WORD 4u   /* behind the first 16 bytes */
#define BODY_END_WORD 1020u  /* before the last 16 bytes */
#define TAIL_WORD 1020u
#define TABLE_PAGE_SHIFT 10u /* one page of the generation table covers 1024 pages */

/* ---- the machine: ports, time stamp counter, string instructions, division ---- */
static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port)
{
	u8 value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline u16 inw(u16 port)
{
	u16 value;
	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline u32 inl(u16 port)
{
	u32 value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline u64 read_tsc(void)
{
	u64 value;
	__asm__ volatile("rdtsc" : "=A"(value) : : "memory");
	return value;
}
/* String instructions: where KVM emulates each instruction, a loop of words costs eight times as much. */
static inline void fill_words(u32 *to, u32 value, u32 count)
{
	__asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}
static inline void copy_bytes(void *to, const void *from, u32 count)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}
/* The first word in [from, end) that differs from `value`, or `end`. */
static inline const u32 *first_other_word(const u32 *from, const u32 *end, u32 value)
{
	u32 count = (u32)(end - from);
	bool same;
	__asm__ volatile("cmpl %%eax, %%eax\n\trepe scasl"
			 : "+D"(from), "+c"(count), "=@ccz"(same) : "a"(value) : "memory");
	return same ? end : from - 1;
}
/* 64 by 32 bits: libgcc's division isn't there with -m32. */
static inline u64 divide(u64 value, u32 by)
{
	u32 high = (u32)(value >> 32), low = (u32)value, rest;
	u32 quotient_high = high / by;
	rest = high % by;
	__asm__("divl %4" : "=a"(low), "=d"(rest) : "a"(low), "d"(rest), "rm"(by) : "cc");
	return (u64)quotient_high << 32 | low;
}

/* ---- parameters.c ---- */
enum pattern { PATTERN_SWEEP, PATTERN_RANDOM, PATTERN_HOT };
enum content { CONTENT_ENDS, CONTENT_CONSTANT, CONTENT_RANDOM, CONTENT_ZERO };
enum rewrite { REWRITE_ENDS, REWRITE_WHOLE };

#define RATE_UNLIMITED (~0ull)

struct phase {
	u64 working_set_bytes;
	u64 dirty_rate_bytes_s;
	u64 hot_set_bytes;
	u64 hot_writes_percent;
	u64 burst_period_ms; /* 0: no bursts */
	u64 burst_duty_percent;
	u64 pattern;
};
struct parameters {
	struct phase phase[2];
	u64 phase2_at_ms; /* this and the other times: 0 = never */
	u64 fill_bytes;
	u64 content, rewrite, seed;
	u64 heartbeat_interval_ms, status_interval_ms;
	u64 check_sweep_ms, check_share_percent, check_body_words;
	u64 poweroff_at_ms, reset_at_ms, suspend_at_ms;
};
extern struct parameters parameters;
/* Both say what is wrong with an E line and return false. */
bool parameters_load(void);
bool parameters_set_live(char *text, u32 phase_number);

/* ---- firmware.c: what QEMU says through fw_cfg ---- */
#define PARAMETER_TEXT_BYTES 2048u
u32 firmware_read_file(const char *name, void *to, u32 size_limit);
u64 firmware_ram_bytes(void);
u32 firmware_low_ram_bytes(void);

/* ---- serial.c ---- */
void serial_initialise(void);
bool serial_pump(void); /* sends up to 16 characters; true while something waits and the line takes it */
void serial_drain(void);
void serial_end_cut_line(void);
int serial_read(void); /* a byte, or -1 */
void line_begin(char kind);
void line_text(const char *key, const char *value);
void line_number(const char *key, u64 value);
void line_address(const char *key, u32 value);
bool line_end(void);
bool line_end_if_roomy(void); /* fault lines leave room for beats */
void serial_beat(void);
extern u32 serial_dropped_count;
extern u32 beat_count;

/* ---- clock.c ---- */
void clock_calibrate(void);
void clock_start_ticks(u32 ticks_s);
void clock_suspend(void);
void clock_resume(void);
void clock_wait_for_tick(void);
u32 clock_ms(u64 now);
u32 clock_us(u64 span);
extern u64 clock_offset;
extern u64 clock_start;
extern u32 tsc_khz;
static inline u64 clock_now(void) { return read_tsc() + clock_offset; }
static inline u64 clock_span_ms(u64 ms) { return ms * tsc_khz; }

/* ---- pages.c: the pages, what each must hold, the generations ---- */
enum fault {
	FAULT_NONE,
	FAULT_STALE,   /* an older generation of this page */
	FAULT_NEWER,   /* a newer one: the table's page is stale */
	FAULT_TORN,    /* first and last 16 bytes of different generations */
	FAULT_LOST,    /* nothing but zero in both ends */
	FAULT_FOREIGN, /* another page's content */
	FAULT_CORRUPT,
	FAULT_BODY,    /* ends right, body not */
	FAULT_TABLE,   /* a page of the generation table against its sum */
	FAULT_TOTAL,   /* the sums against the number of writes */
};
extern u32 *page_base;
extern u32 *generation;
extern u32 generation_sum[];
extern u32 page_count, filled_page_count;
extern u64 write_count, fault_count;
static inline u32 *page_at(u32 index) { return page_base + (u64)index * PAGE_WORDS; }

#define CHECKSUM_GENERATION 0x9E3779B1u
#define CHECKSUM_INDEX 0x85EBCA77u
#define CHECKSUM_START 0x27D4EB2Fu
static inline u32 edge_checksum(u32 index, u32 at)
{
	return at * CHECKSUM_GENERATION + index * CHECKSUM_INDEX + CHECKSUM_START;
}
void pages_lay_out(void);
void pages_fill(void);
void page_write_body(u32 index, u32 at);
/* Checks ends and, when asked, body words [from_word, end_word); names and repairs what is wrong. */
bool page_check(u32 index, u32 from_word, u32 end_word, const char *by);
bool table_check_page(u32 table_page, const char *by);
bool table_check_total(const char *by);

/* ---- writer.c ---- */
void writer_start_phase(u32 number, u64 now);
void writer_apply_phase(u64 now);
void writer_set_unlimited(bool unlimited, u64 now);
bool writer_step(u64 now);
extern u32 phase_number;

/* ---- checker.c ---- */
void checker_start(u64 now);
bool checker_step(u64 now);
void verdict_start(bool full);
bool verdict_step(u64 now);
extern u32 sweep_count;
extern u64 checked_count;

/* ---- power.c ---- */
void power_initialise(void);
void power_off(void);
void power_reset(void);
void power_suspend(void); /* returns when woken */

/* ---- main.c ---- */
extern u64 batch_span; /* the longest time between two looks at the clock */
void say_event(const char *event, u64 now);
bool poll_beat(u64 now);
/* The next batch's size, so that it takes about batch_span. */
u32 fit_batch(u32 batch, u32 done, u64 took);
void stop_for_ever(void) __attribute__((noreturn));

#endif
