/* The order of things: read the machine, fill the memory, measure the ceiling, then the loop. */
#include "guest.h"

#define PROTOCOL_VERSION 1u
#define CALIBRATION_MS 30u
#define CALIBRATION_SLICE_MS 10u
#define CALIBRATION_SLICES 5u
#define BEAT_COST_PERCENT_MAX 5u
#define INPUT_INTERVAL_MS 5u
#define BATCH_MAX 65536u
#define COMMAND_BYTES 512u

u64 batch_span;

static u64 heartbeat_span, next_beat, beat_cost;
static u64 status_span, next_status, status_at, status_writes;
static u64 next_input, next_event;
static u64 ceiling_bytes_s, fill_span;
static char command[COMMAND_BYTES];
static u32 command_length; /* 0: no command line begun */

void stop_for_ever(void)
{
	for (;;)
		__asm__ volatile("cli\n\thlt");
}

void say_event(const char *event, u64 now)
{
	line_begin('N');
	line_text("event", event);
	line_number("time_ms", clock_ms(now));
	line_end();
}

/* From boot.S: this program has a fault of its own. */
void say_exception(u32 number, u32 error_code, u32 address)
{
	line_begin('E');
	line_text("error", "exception");
	line_number("number", number);
	line_number("code", error_code);
	line_address("address", address);
	line_end();
	serial_drain();
	stop_for_ever();
}

bool poll_beat(u64 now)
{
	if (now < next_beat)
		return false;
	next_beat += heartbeat_span;
	if (next_beat <= now) /* late by more than a beat, as after a migration: no burst of beats */
		next_beat = now + heartbeat_span;
	serial_beat();
	return true;
}

u32 fit_batch(u32 batch, u32 done, u64 took)
{
	bool slow = took > batch_span + batch_span / 4;
	bool quick = done == batch && took < batch_span - batch_span / 4;
	if (!slow && !quick)
		return batch;
	/* In proportion, but at most half or double: a single batch may have been cut by a descheduled vCPU. */
	if (took > 2 * batch_span)
		return batch > 1 ? batch / 2 : 1;
	if (took < batch_span / 2)
		return batch < BATCH_MAX / 2 ? batch * 2 : BATCH_MAX;
	u32 fitting = (u32)divide(done * batch_span, (u32)took);
	return fitting ? fitting : 1;
}

static u64 bytes_s(u64 pages, u64 span)
{
	u32 span_us = clock_us(span);
	return span_us ? divide(pages * PAGE_BYTES * 1000000ull, span_us) : 0;
}

static void start_status(u64 now)
{
	status_at = now;
	status_writes = write_count;
	next_status = now + status_span;
}

static void say_status(u64 now)
{
	line_begin('R');
	line_number("time_ms", clock_ms(now));
	line_number("rate_bytes_s", bytes_s(write_count - status_writes, now - status_at));
	line_number("writes", write_count);
	line_number("beats", beat_count);
	line_number("checked", checked_count);
	line_number("sweeps", sweep_count);
	line_number("bad", fault_count);
	line_number("dropped", serial_dropped_count);
	line_end();
	start_status(now);
}

/* At boot, and again for a host that connected late: `boot` tells which, so that a reset isn't taken for a question. */
static void say_hello(bool boot)
{
	line_begin('L');
	line_number("version", PROTOCOL_VERSION);
	line_number("boot", boot);
	line_number("ram_bytes", firmware_ram_bytes());
	line_number("usable_bytes", (u64)page_count * PAGE_BYTES);
	line_address("page_base", (u32)page_base);
	line_address("table_base", (u32)generation);
	line_address("sum_base", (u32)generation_sum);
	line_number("tsc_khz", tsc_khz);
	line_end();
}

static void say_ready(void)
{
	line_begin('C');
	line_number("time_ms", clock_ms(clock_now()));
	line_number("fill_bytes", (u64)filled_page_count * PAGE_BYTES);
	line_number("fill_ms", clock_us(fill_span) / 1000);
	line_number("ceiling_bytes_s", ceiling_bytes_s);
	line_number("beat_cost_us", clock_us(beat_cost));
	line_number("heartbeat_us", clock_us(heartbeat_span));
	line_end();
}

static void apply_change(u64 now)
{
	command[command_length] = 0;
	command_length = 0;
	if (!parameters_set_live(command + 1, phase_number))
		return;
	writer_apply_phase(now);
	say_status(now); /* so that the next one is about the new rate alone */
	say_event("set", now);
}

/* One character: a command, or part of "=name=value\n". */
static void take_input(char character, u64 now)
{
	if (command_length) {
		if (character == '\n' || character == '\r')
			apply_change(now);
		else if (command_length < COMMAND_BYTES - 1)
			command[command_length++] = character;
		return;
	}
	switch (character) {
	case '=': command[command_length++] = '='; break;
	case 'v': verdict_start(true); break;
	case 'q': verdict_start(false); break;
	case 'h':
		say_hello(false);
		say_ready();
		break;
	case 'i': say_status(now); break;
	case 'p': power_off(); break;
	case 'r': power_reset(); break;
	case 's': power_suspend(); break;
	default: break;
	}
}

static void poll_input(u64 now)
{
	int character;
	if (now < next_input)
		return;
	next_input = now + clock_span_ms(INPUT_INTERVAL_MS);
	while ((character = serial_read()) >= 0) {
		next_input = now; /* there may be more at once */
		take_input((char)character, now);
	}
}

static bool due(u64 *at_ms, u64 now_ms)
{
	if (*at_ms == 0 || now_ms < *at_ms)
		return false;
	*at_ms = 0; /* once */
	return true;
}

static void poll_events(u64 now)
{
	if (now < next_event)
		return;
	next_event = now + clock_span_ms(1);
	u64 now_ms = clock_ms(now);
	if (due(&parameters.phase2_at_ms, now_ms)) {
		writer_start_phase(1, now);
		say_status(now);
		say_event("phase2", now);
	}
	if (due(&parameters.suspend_at_ms, now_ms))
		power_suspend();
	if (due(&parameters.reset_at_ms, now_ms))
		power_reset();
	if (due(&parameters.poweroff_at_ms, now_ms))
		power_off();
}

/* One turn: at most a batch of each kind of work. Returns whether there was any. */
static bool turn(void)
{
	u64 now = clock_now();
	bool busy = writer_step(now);
	u64 after = busy ? clock_now() : now;
	poll_beat(after);
	busy |= verdict_step(after) || checker_step(after);
	poll_beat(clock_now());
	return serial_pump() || busy;
}

static void run(void)
{
	for (;;) {
		bool busy = turn();
		u64 now = clock_now();
		poll_input(now);
		poll_events(now);
		if (now >= next_status)
			say_status(now);
		else if (!busy)
			clock_wait_for_tick();
	}
}

/* The largest of what must be filled, in pages; 0 when it doesn't fit. */
static u32 pages_to_fill(void)
{
	u64 most = parameters.fill_bytes;
	for (u32 i = 0; i < 2; i++)
		if (parameters.phase[i].working_set_bytes > most)
			most = parameters.phase[i].working_set_bytes;
	u64 pages = (most + PAGE_BYTES - 1) / PAGE_BYTES;
	if (pages <= page_count)
		return (u32)pages;
	line_begin('E');
	line_text("error", "memory_too_small");
	line_number("needed_bytes", pages * PAGE_BYTES);
	line_number("usable_bytes", (u64)page_count * PAGE_BYTES);
	line_end();
	return 0;
}

static void fit_to_beat_cost(void)
{
	beat_cost = ~0ull;
	for (int i = 0; i < 5; i++) {
		serial_drain();
		u64 from = clock_now();
		serial_beat();
		serial_pump();
		u64 cost = clock_now() - from;
		beat_cost = cost < beat_cost ? cost : beat_cost;
	}
	u64 least = divide(beat_cost * 100, BEAT_COST_PERCENT_MAX);
	if (heartbeat_span < least) {
		heartbeat_span = least;
		say_event("heartbeat_stretched", clock_now());
	}
	u64 longest = clock_span_ms(10);
	batch_span = divide(heartbeat_span < longest ? heartbeat_span : longest, 10);
	if (batch_span < 10 * beat_cost) /* looking at the clock costs, too */
		batch_span = 10 * beat_cost;
}

static u64 rate_of_slice(u64 span)
{
	u64 from = clock_now(), writes_from = write_count, now = from;
	while (now - from < span) {
		turn();
		now = clock_now();
	}
	return bytes_s(write_count - writes_from, now - from);
}

/* The second least of some slices: what the guest can keep up, not what it can at its best. */
static void measure_ceiling(void)
{
	u64 least = ~0ull, second = ~0ull;
	writer_set_unlimited(true, clock_now());
	rate_of_slice(clock_span_ms(CALIBRATION_MS)); /* lets the batches find their size */
	for (u32 i = 0; i < CALIBRATION_SLICES; i++) {
		u64 rate = rate_of_slice(clock_span_ms(CALIBRATION_SLICE_MS));
		if (rate < least) {
			second = least;
			least = rate;
		} else if (rate < second) {
			second = rate;
		}
	}
	ceiling_bytes_s = second;
	writer_set_unlimited(false, clock_now());
}

void guest_main(void)
{
	serial_initialise();
	serial_end_cut_line();
	clock_calibrate();
	clock_start = clock_now();
	pages_lay_out();
	power_initialise();
	say_hello(true);
	bool good = parameters_load();
	if (good)
		filled_page_count = pages_to_fill();
	if (!good || filled_page_count == 0) {
		serial_drain();
		stop_for_ever();
	}
	u64 heartbeat_ms = parameters.heartbeat_interval_ms;
	heartbeat_span = clock_span_ms(heartbeat_ms);
	status_span = clock_span_ms(parameters.status_interval_ms);
	fit_to_beat_cost();
	/* Where instructions are emulated one by one, each tick costs a quarter of a millisecond. */
	bool slow = beat_cost > divide(tsc_khz, 20);
	clock_start_ticks((heartbeat_ms < 5 ? 4000 : 1000) / (slow ? 2 : 1));
	next_beat = clock_now() + heartbeat_span;
	u64 fill_from = clock_now();
	pages_fill();
	u64 now = clock_now();
	fill_span = now - fill_from;
	writer_start_phase(0, now);
	checker_start(now);
	measure_ceiling();
	say_ready();
	now = clock_now();
	writer_apply_phase(now);
	start_status(now);
	run();
}
