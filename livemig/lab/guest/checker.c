/* The endless check of all filled memory, on a budget, and the verdict when the host asks for one. */
#include "guest.h"

#define CREDIT_BITS 36
#define CATCH_UP_MS 50u
#define BATCH_START 4u

u32 sweep_count;
u64 checked_count;

static struct {
	u64 credit_per_tick, credit, last, not_before;
	u32 cursor, batch, body_word;
} checker;

static struct {
	bool active, full;
	u32 cursor, batch, fault_count;
	u64 started;
} verdict;

void checker_start(u64 now)
{
	u64 pages = (u64)filled_page_count << CREDIT_BITS;
	checker.credit_per_tick = divide(divide(pages, (u32)parameters.check_sweep_ms), tsc_khz);
	checker.last = now;
	checker.batch = BATCH_START;
	checker.body_word = BODY_FIRST_WORD;
	verdict.batch = BATCH_START;
}

static u32 pages_due(u64 now)
{
	u64 span = now - checker.last, longest = clock_span_ms(CATCH_UP_MS);
	u64 most = longest * checker.credit_per_tick + (1ull << CREDIT_BITS);
	checker.last = now;
	checker.credit += (span < longest ? span : longest) * checker.credit_per_tick;
	if (checker.credit > most)
		checker.credit = most;
	return (u32)(checker.credit >> CREDIT_BITS);
}

static void end_sweep(void)
{
	table_check_total("check");
	checker.cursor = 0;
	sweep_count++;
	checker.body_word += (u32)parameters.check_body_words; /* the next sweep samples the words behind these */
	if (checker.body_word >= BODY_END_WORD)
		checker.body_word = BODY_FIRST_WORD;
}

/* Checks what is due, within the share of the CPU that it may take. */
bool checker_step(u64 now)
{
	if (now < checker.not_before)
		return false;
	u32 due = pages_due(now);
	if (due == 0)
		return false;
	u32 count = due < checker.batch ? due : checker.batch;
	u32 end_word = checker.body_word + (u32)parameters.check_body_words;
	if (end_word > BODY_END_WORD)
		end_word = BODY_END_WORD;
	for (u32 i = 0; i < count; i++) {
		if (checker.cursor % PAGE_WORDS == 0)
			table_check_page(checker.cursor >> TABLE_PAGE_SHIFT, "check");
		page_check(checker.cursor++, checker.body_word, end_word, "check");
		if (checker.cursor == filled_page_count) {
			end_sweep();
			count = i + 1;
		}
	}
	checked_count += count;
	checker.credit -= (u64)count << CREDIT_BITS;
	u64 took = clock_now() - now;
	u32 share = (u32)parameters.check_share_percent;
	checker.not_before = now + divide(took * 100, share);
	checker.batch = fit_batch(checker.batch, count, took);
	return true;
}

/* full: all words of all bodies; else as many as one sweep looks at. */
void verdict_start(bool full)
{
	verdict.active = true;
	verdict.full = full;
	verdict.cursor = 0;
	verdict.fault_count = 0;
	verdict.started = clock_now();
}

static void say_verdict(u64 now)
{
	u32 sum = 0;
	for (u32 i = 0; i << TABLE_PAGE_SHIFT < filled_page_count; i++)
		sum += generation_sum[i];
	verdict.active = false;
	line_begin('V');
	line_text("bodies", verdict.full ? "all" : "sample");
	line_number("pages", filled_page_count);
	line_number("bad", verdict.fault_count);
	line_number("bad_total", fault_count);
	line_number("beats", beat_count);
	line_number("sweeps", sweep_count);
	line_number("writes", write_count);
	line_number("generation_sum", sum);
	line_number("took_ms", clock_us(now - verdict.started) / 1000);
	line_number("time_ms", clock_ms(now));
	line_end();
}

bool verdict_step(u64 now)
{
	if (!verdict.active)
		return false;
	u32 left = filled_page_count - verdict.cursor, count = left < verdict.batch ? left : verdict.batch;
	u32 from_word = verdict.full ? BODY_FIRST_WORD : checker.body_word;
	u32 end_word = verdict.full ? BODY_END_WORD : from_word + (u32)parameters.check_body_words;
	if (end_word > BODY_END_WORD)
		end_word = BODY_END_WORD;
	for (u32 i = 0; i < count; i++) {
		if (verdict.cursor % PAGE_WORDS == 0)
			verdict.fault_count += !table_check_page(verdict.cursor >> TABLE_PAGE_SHIFT, "verdict");
		verdict.fault_count += !page_check(verdict.cursor++, from_word, end_word, "verdict");
	}
	u64 end = clock_now();
	verdict.batch = fit_batch(verdict.batch, count, end - now);
	if (verdict.cursor == filled_page_count) {
		verdict.fault_count += !table_check_total("verdict");
		say_verdict(end);
	}
	return true;
}
