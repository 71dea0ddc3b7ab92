/* Time: the time stamp counter, measured once against the PIT, and a periodic tick to halt until.
 *
 * The counter runs on across a migration. Another host's counter may have another frequency under TCG: the
 * guest's milliseconds are the source's then. */
#include "guest.h"

#define PIT_HZ 1193182u
#define PIT_CHANNEL0 0x40
#define PIT_CHANNEL2 0x42
#define PIT_COMMAND 0x43
#define PIT_GATE 0x61
#define CALIBRATION_MS 10u
#define LATCH_TRIES 4
#define TICK_VECTOR 0x20
#define LAPIC_SPURIOUS ((volatile u32 *)0xFEE000F0)
#define LAPIC_LINT0 ((volatile u32 *)0xFEE00350)

u64 clock_offset;
u64 clock_start;
u32 tsc_khz;

static u32 tick_divisor;
static u64 suspended_at;
static u64 interrupt_table[TICK_VECTOR + 1] __attribute__((aligned(8)));

extern u8 exception_entries[][16];
extern void tick_interrupt(void);
extern void halt_until_tick(void);
extern void load_interrupt_table(void *base, u32 limit);

static u64 gate(u32 handler)
{
	return (u64)(handler & 0xFFFF0000u) << 32 | 0x00008E0000080000ull | (handler & 0xFFFFu);
}

void make_interrupt_table(void)
{
	for (u32 i = 0; i < TICK_VECTOR; i++)
		interrupt_table[i] = gate((u32)exception_entries[i]);
	interrupt_table[TICK_VECTOR] = gate((u32)tick_interrupt);
	load_interrupt_table(interrupt_table, sizeof interrupt_table - 1);
}

/* Reads counter and PIT together: of some tries, the one that was disturbed least. */
static u32 read_pit(u64 *tsc)
{
	u64 least = ~0ull;
	u32 count = 0;
	*tsc = 0;
	for (int i = 0; i < LATCH_TRIES; i++) {
		u64 before = read_tsc();
		outb(PIT_COMMAND, 0x80);
		u64 after = read_tsc();
		u32 latched = inb(PIT_CHANNEL2);
		latched |= (u32)inb(PIT_CHANNEL2) << 8;
		if (after - before < least) {
			least = after - before;
			*tsc = before + (after - before) / 2;
			count = latched;
		}
	}
	return count;
}

static u32 measure_khz(void)
{
	u64 tsc_from, tsc_to;
	outb(PIT_GATE, (inb(PIT_GATE) & 0xFC) | 1);
	outb(PIT_COMMAND, 0xB0); /* channel 2 counts down once */
	outb(PIT_CHANNEL2, 0xFF);
	outb(PIT_CHANNEL2, 0xFF);
	u32 from = read_pit(&tsc_from), to;
	do {
		to = read_pit(&tsc_to);
	} while (((from - to) & 0xFFFF) < PIT_HZ / 1000 * CALIBRATION_MS);
	/* kHz = ticks of the TSC / (ticks of the PIT / 1193.182 kHz) */
	return (u32)divide(divide((tsc_to - tsc_from) * PIT_HZ, (from - to) & 0xFFFF), 1000);
}

/* Two measurements that agree within 0.4 %: one alone could have been cut by a descheduled vCPU. */
void clock_calibrate(void)
{
	u32 last = measure_khz();
	for (int i = 0; i < 8; i++) {
		tsc_khz = measure_khz();
		u32 apart = tsc_khz > last ? tsc_khz - last : last - tsc_khz;
		if (apart <= tsc_khz / 256)
			break;
		last = tsc_khz;
	}
}

static void start_interrupts(void)
{
	outb(0x20, 0x11);
	outb(0x21, TICK_VECTOR);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xA0, 0x11);
	outb(0xA1, TICK_VECTOR + 8);
	outb(0xA1, 2);
	outb(0xA1, 1);
	outb(0x21, 0xFE);
	outb(0xA1, 0xFF);
	*LAPIC_SPURIOUS = 0x1FF;
	*LAPIC_LINT0 = 0x700; /* the PIC's line comes through */
	outb(PIT_COMMAND, 0x34);
	outb(PIT_CHANNEL0, tick_divisor & 0xFF);
	outb(PIT_CHANNEL0, tick_divisor >> 8);
}

void clock_start_ticks(u32 ticks_s)
{
	tick_divisor = PIT_HZ / ticks_s;
	start_interrupts();
}

void clock_suspend(void) { suspended_at = clock_now(); }

/* The counter may have been reset: the guest's time goes on where it was. */
void clock_resume(void)
{
	clock_offset = suspended_at - read_tsc();
	start_interrupts();
}

void clock_wait_for_tick(void) { halt_until_tick(); }

u32 clock_ms(u64 now) { return (u32)divide(now - clock_start, tsc_khz); }

u32 clock_us(u64 span) { return (u32)divide(span * 1000, tsc_khz); }
