/* The parameters: "name=value" separated by ':' (no shell and no QEMU option parser minds it). */
#include "guest.h"

#define OFFSET(structure, field) ((u16)__builtin_offsetof(structure, field))
#define DAYS_49_MS 4233600000ull
#define EXABYTE (1ull << 60)

enum kind { NUMBER, RATE, PATTERN, CONTENT, REWRITE };

struct rule {
	const char *name;
	u16 offset;
	u8 kind;
	u64 least, most;
};

static const struct rule phase_rules[] = {
	{"pattern", OFFSET(struct phase, pattern), PATTERN, 0, 0},
	{"working_set_bytes", OFFSET(struct phase, working_set_bytes), NUMBER, PAGE_BYTES, 1ull << 32},
	{"dirty_rate_bytes_s", OFFSET(struct phase, dirty_rate_bytes_s), RATE, 0, 1ull << 38},
	{"hot_set_bytes", OFFSET(struct phase, hot_set_bytes), NUMBER, 0, 1ull << 32},
	{"hot_writes_percent", OFFSET(struct phase, hot_writes_percent), NUMBER, 0, 100},
	{"burst_period_ms", OFFSET(struct phase, burst_period_ms), NUMBER, 0, 3600000},
	{"burst_duty_percent", OFFSET(struct phase, burst_duty_percent), NUMBER, 1, 100},
};
static const struct rule rules[] = {
	{"phase2_at_ms", OFFSET(struct parameters, phase2_at_ms), NUMBER, 0, DAYS_49_MS},
	{"fill_bytes", OFFSET(struct parameters, fill_bytes), NUMBER, 0, 1ull << 32},
	{"content", OFFSET(struct parameters, content), CONTENT, 0, 0},
	{"rewrite", OFFSET(struct parameters, rewrite), REWRITE, 0, 0},
	{"seed", OFFSET(struct parameters, seed), NUMBER, 0, 0xFFFFFFFFull},
	{"heartbeat_interval_ms", OFFSET(struct parameters, heartbeat_interval_ms), NUMBER, 1, 60000},
	{"status_interval_ms", OFFSET(struct parameters, status_interval_ms), NUMBER, 10, 3600000},
	{"check_sweep_ms", OFFSET(struct parameters, check_sweep_ms), NUMBER, 1, 3600000},
	{"check_share_percent", OFFSET(struct parameters, check_share_percent), NUMBER, 1, 90},
	{"check_body_words", OFFSET(struct parameters, check_body_words), NUMBER, 1, 1016},
	{"poweroff_at_ms", OFFSET(struct parameters, poweroff_at_ms), NUMBER, 0, DAYS_49_MS},
	{"reset_at_ms", OFFSET(struct parameters, reset_at_ms), NUMBER, 0, DAYS_49_MS},
	{"suspend_at_ms", OFFSET(struct parameters, suspend_at_ms), NUMBER, 0, DAYS_49_MS},
};
#define PHASE_RULE_COUNT (sizeof phase_rules / sizeof *phase_rules)
#define RULE_COUNT (sizeof rules / sizeof *rules)

static const char *const pattern_names[] = {"sweep", "random", "hot", NULL};
static const char *const content_names[] = {"ends", "constant", "random", "zero", NULL};
static const char *const rewrite_names[] = {"ends", "whole", NULL};

struct parameters parameters;
static bool phase2_given[PHASE_RULE_COUNT];
static char text[PARAMETER_TEXT_BYTES];

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static bool refuse(const char *why, const char *name, const char *value)
{
	line_begin('E');
	line_text("error", why);
	line_text("name", name);
	line_text("value", value);
	line_end();
	return false;
}

static bool read_name(const char *const *names, const char *value, u64 *to)
{
	for (u32 i = 0; names[i]; i++)
		if (same_text(names[i], value)) {
			*to = i;
			return true;
		}
	return false;
}

/* Digits, and K, M or G for 1024 and its powers. */
static bool read_number(const char *value, u64 *to)
{
	u64 number = 0;
	if (!*value)
		return false;
	for (; *value >= '0' && *value <= '9'; value++) {
		if (number > EXABYTE / 10)
			return false;
		number = number * 10 + (u64)(*value - '0');
	}
	u32 shift = *value == 'K' ? 10 : *value == 'M' ? 20 : *value == 'G' ? 30 : 0;
	if (shift)
		value++;
	if (number >> (60 - shift))
		return false;
	*to = number << shift;
	return !*value;
}

static bool read_value(const struct rule *rule, const char *value, u64 *to)
{
	u64 number;
	switch (rule->kind) {
	case PATTERN: return read_name(pattern_names, value, to);
	case CONTENT: return read_name(content_names, value, to);
	case REWRITE: return read_name(rewrite_names, value, to);
	case RATE:
		if (same_text(value, "max")) {
			*to = RATE_UNLIMITED;
			return true;
		}
		break;
	default: break;
	}
	if (!read_number(value, &number) || number < rule->least || number > rule->most)
		return false;
	*to = number;
	return true;
}

static u64 *field(void *structure, const struct rule *rule) { return (u64 *)((u8 *)structure + rule->offset); }

static bool set_phase(struct phase *phase, const char *name, const char *value, bool *known)
{
	for (u32 i = 0; i < PHASE_RULE_COUNT; i++) {
		if (!same_text(phase_rules[i].name, name))
			continue;
		*known = true;
		if (phase == &parameters.phase[1])
			phase2_given[i] = true;
		return read_value(&phase_rules[i], value, field(phase, &phase_rules[i]));
	}
	return false;
}

static bool set_one(const char *name, const char *value, bool live, struct phase *phase)
{
	bool known = false, good = false;
	for (u32 i = 0; i < RULE_COUNT && !known && !live; i++)
		if (same_text(rules[i].name, name)) {
			known = true;
			good = read_value(&rules[i], value, field(&parameters, &rules[i]));
		}
	if (!known) {
		const char *prefix = "phase2_", *rest = name;
		while (*prefix && *prefix == *rest)
			prefix++, rest++;
		if (!*prefix && !live)
			good = set_phase(&parameters.phase[1], rest, value, &known);
		else
			good = set_phase(phase, name, value, &known);
	}
	if (!known)
		return refuse("unknown_parameter", name, value);
	return good || refuse("bad_value", name, value);
}

/* Cuts the text at its separators, in place. */
static bool set_all(char *at, bool live, struct phase *phase)
{
	while (*at) {
		char *name = at, *value = NULL;
		for (; *at && *at != ':' && *at != '\n'; at++)
			if (*at == '=' && !value) {
				*at = 0;
				value = at + 1;
			}
		if (*at)
			*at++ = 0;
		if (!value) {
			if (*name)
				return refuse("no_value", name, "");
			continue;
		}
		if (!set_one(name, value, live, phase))
			return false;
	}
	return true;
}

static bool check_phase(const struct phase *phase)
{
	if (phase->hot_set_bytes > phase->working_set_bytes)
		return refuse("hot_set_exceeds_working_set", "hot_set_bytes", "");
	if (phase->pattern == PATTERN_HOT && phase->hot_set_bytes < PAGE_BYTES)
		return refuse("hot_set_missing", "hot_set_bytes", "");
	return true;
}

static void set_defaults(void)
{
	parameters.phase[0] = (struct phase){
		.working_set_bytes = 4 << 20, .dirty_rate_bytes_s = 4 << 20, .hot_writes_percent = 90,
		.burst_duty_percent = 50, .pattern = PATTERN_SWEEP};
	parameters.heartbeat_interval_ms = 10;
	parameters.status_interval_ms = 1000;
	parameters.check_sweep_ms = 2000;
	parameters.check_share_percent = 20;
	parameters.check_body_words = 4;
	parameters.seed = 1;
}

bool parameters_load(void)
{
	set_defaults();
	u32 size = firmware_read_file("opt/livemig", text, sizeof text - 1);
	if (size >= sizeof text)
		return refuse("parameters_too_long", "opt_livemig", "");
	text[size] = 0;
	if (!set_all(text, false, &parameters.phase[0]))
		return false;
	for (u32 i = 0; i < PHASE_RULE_COUNT; i++)
		if (!phase2_given[i])
			*field(&parameters.phase[1], &phase_rules[i]) = *field(&parameters.phase[0], &phase_rules[i]);
	return check_phase(&parameters.phase[0]) && check_phase(&parameters.phase[1]);
}

/* A change by the host while the guest runs: of the phase's parameters only, all of them or none. */
bool parameters_set_live(char *change, u32 number)
{
	struct phase *phase = &parameters.phase[number], before = *phase;
	if (set_all(change, true, phase) && check_phase(phase)) {
		if (phase->working_set_bytes <= (u64)filled_page_count * PAGE_BYTES)
			return true;
		refuse("working_set_exceeds_fill", "working_set_bytes", "");
	}
	*phase = before;
	return false;
}
