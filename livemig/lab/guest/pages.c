/* The pages: what each must hold, the check of it, and the generations kept apart from them.
 *
 * Page `index` at generation g holds {index, g, checksum, magic} in its first and last 16 bytes and a body that
 * derives from the index (with rewrite=whole: from index and generation). generation[index] says which g it must be;
 * generation_sum[] has the sum of each page of that table, and write_count the sum of those sums. So a stale page
 * differs from the table, a stale page of the table from its sum, also where both went back together.
 * With content=zero a page has no ends and no generation: it must be zero, and that is all that is known. */
#include "guest.h"

#define MAGIC_HEAD 0x6C69766Du
#define MAGIC_TAIL 0x6D696765u
#define CONSTANT_WORD 0xA5A5A5A5u
#define SUM_COUNT 1024u /* 4 GiB of pages */
#define POLL_WORDS 128u

u32 *page_base;
u32 *generation;
u32 generation_sum[SUM_COUNT] __attribute__((aligned(4096)));
u32 page_count, filled_page_count;
u64 write_count __attribute__((aligned(4096)));
u64 fault_count;

extern u8 data_end[];

static const char *const fault_names[] = {
	"none", "stale", "newer", "torn", "lost", "foreign", "corrupt", "body", "table", "total",
};

/* Behind the program: the table, then the pages, up to the end of the memory. */
void pages_lay_out(void)
{
	u32 free_bytes = firmware_low_ram_bytes() - (u32)data_end;
	page_count = free_bytes / (PAGE_BYTES + sizeof *generation);
	generation = (u32 *)data_end;
	u32 table_bytes = (page_count * sizeof *generation + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	page_base = (u32 *)((u32)data_end + table_bytes);
	if (table_bytes + page_count * PAGE_BYTES > free_bytes)
		page_count--;
}

static u32 body_seed(u32 index, u32 at)
{
	u32 seed = index * CHECKSUM_INDEX ^ (u32)parameters.seed * CHECKSUM_START;
	return parameters.rewrite == REWRITE_WHOLE ? seed + at * CHECKSUM_GENERATION : seed;
}

/* Any word of a body without those before it: a counter through a mixing function, which no compressor sees through. */
static u32 body_word(u32 seed, u32 word)
{
	u32 value = seed + word * 0x9E3779B9u;
	value = (value ^ value >> 15) * 0x2C1B3C6Du;
	value = (value ^ value >> 12) * 0x297A2D39u;
	return value ^ value >> 15;
}

static u32 constant_of_body(u32 at)
{
	if (parameters.content != CONTENT_CONSTANT)
		return 0;
	return parameters.rewrite == REWRITE_WHOLE ? CONSTANT_WORD + at : CONSTANT_WORD;
}

void page_write_body(u32 index, u32 at)
{
	u32 *page = page_at(index);
	if (parameters.content != CONTENT_RANDOM) {
		fill_words(page + BODY_FIRST_WORD, constant_of_body(at), BODY_END_WORD - BODY_FIRST_WORD);
		return;
	}
	u32 seed = body_seed(index, at);
	for (u32 word = BODY_FIRST_WORD; word < BODY_END_WORD; word++)
		page[word] = body_word(seed, word);
}

static void write_ends(u32 index, u32 at)
{
	u32 *page = page_at(index);
	bool zero = parameters.content == CONTENT_ZERO;
	u32 checksum = edge_checksum(index, at);
	page[0] = zero ? 0 : index;
	page[1] = zero ? 0 : at;
	page[2] = zero ? 0 : checksum;
	page[3] = zero ? 0 : MAGIC_HEAD;
	page[TAIL_WORD] = zero ? 0 : index;
	page[TAIL_WORD + 1] = zero ? 0 : at;
	page[TAIL_WORD + 2] = zero ? 0 : checksum;
	page[TAIL_WORD + 3] = zero ? 0 : MAGIC_TAIL;
}

/* Bodies of zero aren't written: QEMU's memory starts as zero and a guest that resets finds its own bodies. */
void pages_fill(void)
{
	bool bodies = parameters.content == CONTENT_RANDOM || parameters.content == CONTENT_CONSTANT;
	fill_words(generation, 0, (filled_page_count + PAGE_WORDS - 1) / PAGE_WORDS * PAGE_WORDS);
	for (u32 index = 0; index < filled_page_count; index++) {
		write_ends(index, 0);
		if (bodies)
			page_write_body(index, 0);
		if (bodies || index % 32 == 0) {
			poll_beat(clock_now());
			serial_pump();
		}
	}
}

static bool edge_right(const u32 *edge, u32 magic)
{
	return edge[3] == magic && edge[2] == edge_checksum(edge[0], edge[1]);
}

static enum fault diagnose_ends(const u32 *page, u32 index, u32 expected)
{
	const u32 *tail = page + TAIL_WORD;
	u32 any = page[0] | page[1] | page[2] | page[3] | tail[0] | tail[1] | tail[2] | tail[3];
	if (parameters.content == CONTENT_ZERO)
		return any ? FAULT_CORRUPT : FAULT_NONE;
	if (!any)
		return FAULT_LOST;
	if (!edge_right(page, MAGIC_HEAD) || !edge_right(tail, MAGIC_TAIL))
		return FAULT_CORRUPT;
	if (page[0] != index || tail[0] != index)
		return FAULT_FOREIGN;
	if (page[1] != tail[1])
		return FAULT_TORN;
	if (page[1] != expected)
		return page[1] < expected ? FAULT_STALE : FAULT_NEWER;
	return FAULT_NONE;
}

/* The first wrong word of [from, end), or end. */
static u32 check_body(u32 index, u32 at, u32 from, u32 end)
{
	const u32 *page = page_at(index);
	if (parameters.content != CONTENT_RANDOM)
		return (u32)(first_other_word(page + from, page + end, constant_of_body(at)) - page);
	u32 seed = body_seed(index, at);
	for (u32 word = from; word < end; word++)
		if (page[word] != body_word(seed, word))
			return word;
	return end;
}

static void say_fault(enum fault fault, u32 number, u32 address, u32 expected, u32 found, const char *by)
{
	fault_count++;
	line_begin('F');
	line_text("kind", fault_names[fault]);
	line_number("page", number);
	line_address("address", address);
	line_number("expected", expected);
	line_number("found", found);
	line_text("by", by);
	line_number("time_ms", clock_ms(clock_now()));
	line_end_if_roomy();
}

bool page_check(u32 index, u32 from_word, u32 end_word, const char *by)
{
	u32 *page = page_at(index), expected = generation[index], wrong_word = end_word;
	enum fault fault = diagnose_ends(page, index, expected);
	if (fault == FAULT_NONE && from_word < end_word) {
		wrong_word = check_body(index, expected, from_word, end_word);
		if (wrong_word != end_word)
			fault = FAULT_BODY;
	}
	if (fault == FAULT_NONE)
		return true;
	if (fault == FAULT_BODY) {
		u32 right = parameters.content == CONTENT_RANDOM ? body_word(body_seed(index, expected), wrong_word)
								 : constant_of_body(expected);
		say_fault(fault, index, (u32)(page + wrong_word), right, page[wrong_word], by);
	} else {
		say_fault(fault, index, (u32)page, expected, page[page[1] == expected ? TAIL_WORD + 1 : 1], by);
	}
	/* Repaired, so that each loss is named once. */
	write_ends(index, expected);
	page_write_body(index, expected);
	return false;
}

/* Sums are kept modulo 2^32: what is lost or gained is taken for less than half of that. */
static u64 signed_difference(u32 found, u32 expected) { return (u64)(long long)(int)(found - expected); }

/* No page is written meanwhile, so this sees one moment; beats go on. */
bool table_check_page(u32 table_page, const char *by)
{
	const u32 *words = generation + table_page * PAGE_WORDS;
	u32 sum = 0;
	for (u32 from = 0; from < PAGE_WORDS; from += POLL_WORDS) {
		for (u32 i = from; i < from + POLL_WORDS; i += 8)
			sum += words[i] + words[i + 1] + words[i + 2] + words[i + 3] + words[i + 4] + words[i + 5] +
			       words[i + 6] + words[i + 7];
		poll_beat(clock_now());
	}
	if (sum == generation_sum[table_page])
		return true;
	say_fault(FAULT_TABLE, table_page, (u32)words, generation_sum[table_page], sum, by);
	write_count += signed_difference(sum, generation_sum[table_page]);
	generation_sum[table_page] = sum;
	return false;
}

bool table_check_total(const char *by)
{
	u32 total = 0, covered = (filled_page_count + PAGE_WORDS - 1) / PAGE_WORDS;
	for (u32 i = 0; i < covered; i++)
		total += generation_sum[i];
	if (parameters.content == CONTENT_ZERO || total == (u32)write_count)
		return true;
	say_fault(FAULT_TOTAL, 0, (u32)generation_sum, (u32)write_count, total, by);
	write_count += signed_difference(total, (u32)write_count);
	return false;
}
