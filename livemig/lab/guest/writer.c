/* Writes to pages: which page next, and how many are due. A page is looked at before it is written, so that
 * writing never covers up a loss. */
#include "guest.h"

#define CREDIT_BITS 36 /* credit is counted in pages / 2^36 */
#define CATCH_UP_MS 50u /* after a pause at most this much is made up for */
#define BATCH_MAX 65536u

u32 phase_number;

static struct {
	u32 pattern, working_set_pages, hot_set_pages, hot_threshold;
	bool idle, unlimited, calibrating;
	u64 credit_per_tick, credit, last;
	bool bursts, burst_on;
	u64 burst_on_span, burst_off_span, burst_edge;
	u32 cursor, random, batch;
} writer;

/* Reads the current phase's parameters anew. */
void writer_apply_phase(u64 now)
{
	const struct phase *phase = &parameters.phase[phase_number];
	bool was_bursting = writer.bursts;
	u64 rate = phase->dirty_rate_bytes_s;
	writer.pattern = (u32)phase->pattern;
	writer.working_set_pages = (u32)((phase->working_set_bytes + PAGE_BYTES - 1) / PAGE_BYTES);
	writer.hot_set_pages = (u32)((phase->hot_set_bytes + PAGE_BYTES - 1) / PAGE_BYTES);
	writer.hot_threshold = (u32)divide(0xFFFFFFFFull * (u32)phase->hot_writes_percent, 100);
	if (writer.hot_set_pages >= writer.working_set_pages)
		writer.hot_threshold = 0xFFFFFFFF;
	writer.idle = rate == 0;
	writer.unlimited = rate == RATE_UNLIMITED;
	/* pages/s * 2^36 / (ticks/s), with 4096 bytes = 2^12 */
	writer.credit_per_tick = writer.unlimited ? 0 : divide(divide(rate << (CREDIT_BITS - 12), tsc_khz), 1000);
	u64 period = clock_span_ms(phase->burst_period_ms);
	writer.bursts = period != 0;
	writer.burst_on_span = divide(period * phase->burst_duty_percent, 100);
	writer.burst_off_span = period - writer.burst_on_span;
	if (writer.bursts && !was_bursting) {
		writer.burst_on = true;
		writer.burst_edge = now + writer.burst_on_span;
	}
	if (writer.cursor >= writer.working_set_pages)
		writer.cursor = 0;
	writer.credit = 0;
	writer.last = now;
}

void writer_start_phase(u32 number, u64 now)
{
	phase_number = number;
	if (number == 0) {
		writer.random = (u32)parameters.seed;
		writer.batch = 1;
	}
	writer_apply_phase(now);
}

/* While the ceiling is measured: as fast as it goes. */
void writer_set_unlimited(bool unlimited, u64 now)
{
	writer.calibrating = unlimited;
	writer.credit = 0;
	writer.last = now;
}

/* How much of the time since the last look the writer was to work. */
static u64 active_span(u64 now)
{
	u64 from = writer.last, longest = clock_span_ms(CATCH_UP_MS), span = 0;
	writer.last = now;
	if (now - from > longest)
		from = now - longest;
	if (!writer.bursts)
		return now - from;
	if (now > writer.burst_edge + writer.burst_on_span + writer.burst_off_span)
		writer.burst_edge = now; /* after a pause the bursts begin anew */
	while (now >= writer.burst_edge) {
		if (writer.burst_on && writer.burst_edge > from)
			span += writer.burst_edge - from;
		if (writer.burst_edge > from)
			from = writer.burst_edge;
		writer.burst_on = !writer.burst_on;
		writer.burst_edge += writer.burst_on ? writer.burst_on_span : writer.burst_off_span;
		if (writer.burst_on_span + writer.burst_off_span == 0)
			break;
	}
	return writer.burst_on ? span + (now - from) : span;
}

static u32 pages_due(u64 now)
{
	if (writer.calibrating)
		return BATCH_MAX;
	if (writer.idle)
		return 0;
	u64 span = active_span(now);
	if (writer.unlimited)
		return writer.bursts && !writer.burst_on ? 0 : BATCH_MAX;
	u64 most = clock_span_ms(CATCH_UP_MS) * writer.credit_per_tick + (1ull << CREDIT_BITS);
	writer.credit += span * writer.credit_per_tick;
	if (writer.credit > most)
		writer.credit = most;
	return (u32)(writer.credit >> CREDIT_BITS);
}

static inline u32 draw(u32 below)
{
	writer.random = writer.random * 1664525u + 1013904223u;
	return (u32)((u64)writer.random * below >> 32);
}

/* Few instructions: KVM without hardware virtualisation takes about a microsecond for each. */
static inline void write_page_at(u32 *page, u32 *table, u32 bias)
{
	u32 at = *table;
	if (__builtin_expect(page[1] != at || page[TAIL_WORD + 1] != at, 0))
		page_check((u32)(table - generation), 0, 0, "write");
	at++;
	u32 checksum = at * CHECKSUM_GENERATION + bias;
	*table = at;
	page[1] = at;
	page[2] = checksum;
	page[TAIL_WORD + 1] = at;
	page[TAIL_WORD + 2] = checksum;
}

static inline void write_page(u32 index)
{
	write_page_at(page_at(index), generation + index, edge_checksum(index, 0));
}

/* `count` pages one after the other: one generation table page at a time, so that its sum is kept by one addition. */
static void write_run(u32 index, u32 count)
{
	while (count) {
		u32 to_edge = PAGE_WORDS - index % PAGE_WORDS;
		u32 run = count < to_edge ? count : to_edge;
		generation_sum[index >> TABLE_PAGE_SHIFT] += run;
		u32 *page = page_at(index), *table = generation + index, bias = edge_checksum(index, 0);
		for (u32 *end = table + run; table < end; table++) {
			write_page_at(page, table, bias);
			page += PAGE_WORDS;
			bias += CHECKSUM_INDEX;
		}
		index += run;
		count -= run;
	}
}

static void write_random(u32 count)
{
	u32 pages = writer.working_set_pages;
	while (count--) {
		u32 index = draw(pages);
		generation_sum[index >> TABLE_PAGE_SHIFT]++;
		write_page(index);
	}
}

static inline u32 draw_hot_or_cold(void)
{
	u32 hot = writer.hot_set_pages;
	draw(1);
	return writer.random <= writer.hot_threshold ? draw(hot) : hot + draw(writer.working_set_pages - hot);
}

static void write_hot(u32 count)
{
	while (count--) {
		u32 index = draw_hot_or_cold();
		generation_sum[index >> TABLE_PAGE_SHIFT]++;
		write_page(index);
	}
}

static u32 next_index(void)
{
	if (writer.pattern == PATTERN_RANDOM)
		return draw(writer.working_set_pages);
	if (writer.pattern == PATTERN_HOT)
		return draw_hot_or_cold();
	u32 index = writer.cursor++;
	if (writer.cursor == writer.working_set_pages)
		writer.cursor = 0;
	return index;
}

/* A page of zeros is dirtied with zeros. */
static void write_zero(u32 index)
{
	volatile u32 *page = page_at(index);
	if (page[0] | page[PAGE_WORDS - 1])
		page_check(index, 0, 0, "write");
	page[0] = 0;
	page[PAGE_WORDS - 1] = 0;
}

static void write_each(u32 count)
{
	while (count--) {
		u32 index = next_index();
		if (parameters.content == CONTENT_ZERO) {
			write_zero(index);
			continue;
		}
		generation_sum[index >> TABLE_PAGE_SHIFT]++;
		write_page(index);
		if (parameters.rewrite == REWRITE_WHOLE)
			page_write_body(index, generation[index]);
	}
}

static void write_sweep(u32 count)
{
	while (count) {
		u32 to_end = writer.working_set_pages - writer.cursor;
		u32 run = count < to_end ? count : to_end;
		write_run(writer.cursor, run);
		writer.cursor = run == to_end ? 0 : writer.cursor + run;
		count -= run;
	}
}

bool writer_step(u64 now)
{
	u32 due = pages_due(now);
	if (due == 0)
		return false;
	u32 count = due < writer.batch ? due : writer.batch;
	write_count += count;
	if (parameters.content == CONTENT_ZERO || parameters.rewrite == REWRITE_WHOLE)
		write_each(count);
	else if (writer.pattern == PATTERN_RANDOM)
		write_random(count);
	else if (writer.pattern == PATTERN_HOT)
		write_hot(count);
	else
		write_sweep(count);
	if (!writer.calibrating && !writer.unlimited)
		writer.credit -= (u64)count << CREDIT_BITS;
	writer.batch = fit_batch(writer.batch, count, clock_now() - now);
	return true;
}
