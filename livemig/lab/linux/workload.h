/* The parts of the Linux guest's workload. Each runs in a thread of its own and ends only with the guest. */
#ifndef LIVEMIG_WORKLOAD_H
#define LIVEMIG_WORKLOAD_H

#include <stdint.h>

enum { RECORD_BYTES = 64, BLOCK_BYTES = 4096 };
enum { ECHO_PORT = 7007, JOURNAL_PORT = 7008, STREAM_PORT = 7009, STREAM_INTERVAL_MS = 2 };

/* What the kernel's command line asks for, as livemig.NAME=VALUE. */
struct settings {
    uint64_t memory_bytes; /* rewritten and checked, over and over; 0 is none */
    uint64_t rate_bytes_s; /* how fast */
    uint64_t beat_ms;
    uint64_t journal_ms; /* pause between two blocks; the journal needs a disk */
};

/* What the beat tells. */
extern _Atomic uint64_t pages_written, faults, journal_sequence;

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sleep_until(uint64_t time_ns);
uint64_t now_ns(void);
uint64_t mix(uint64_t value); /* spreads a number over 64 bits, the same here and in livemig/lab/linux/records.py */

void *echo_tcp(void *unused);
void *stream_tcp(void *unused);
void *echo_udp(void *unused);
void *write_memory(void *settings);
void *write_journal(void *settings);
void *serve_journal(void *unused);

#endif
