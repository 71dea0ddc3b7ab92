/* Rewrites memory at a set rate, and checks each page before it is written again: a page that came late, was lost, or
   is another's is a fault. Generations are kept apart from the pages, so that a page and its record can't agree by
   being stale together unless both were lost. */
#include <stdlib.h>
#include <sys/mman.h>

#include "workload.h"

enum { PAGE_BYTES = 4096, WORDS = PAGE_BYTES / 8, STRIDE = 73, SLICE_MS = 5 };

static uint64_t expected(uint64_t page, uint64_t generation, int word)
{
    return mix((page << 32 | generation) * WORDS + word);
}

static void check_page(const uint64_t *memory, uint64_t page, uint64_t generation)
{
    for (int word = 0; word < WORDS; word += STRIDE) {
        uint64_t found = memory[page * WORDS + word];

        if (found != expected(page, generation, word)) {
            fault("memory: page %llu word %d is not of generation %llu", (unsigned long long)page, word,
                  (unsigned long long)generation);
            return;
        }
    }
}

static void write_page(uint64_t *memory, uint64_t page, uint64_t generation)
{
    for (int word = 0; word < WORDS; word += STRIDE)
        memory[page * WORDS + word] = expected(page, generation, word);
}

void *write_memory(void *argument)
{
    const struct settings *settings = argument;
    uint64_t page_count = settings->memory_bytes / PAGE_BYTES, page = 0, owed = 0, next_ns = now_ns();
    uint64_t slice = settings->rate_bytes_s / 1000 * SLICE_MS;
    uint32_t *generations = calloc(page_count + 1, sizeof *generations);
    uint64_t *memory = mmap(NULL, settings->memory_bytes + PAGE_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || !generations) {
        fault("memory: %llu bytes are not there", (unsigned long long)settings->memory_bytes);
        return NULL;
    }
    for (uint64_t number = 0; number < page_count; number++)
        write_page(memory, number, 0);
    say("memory filled");
    while (page_count && slice) {
        for (owed += slice; owed >= PAGE_BYTES; owed -= PAGE_BYTES, page = (page + 1) % page_count) {
            check_page(memory, page, generations[page]);
            write_page(memory, page, ++generations[page]);
            pages_written++;
        }
        next_ns += SLICE_MS * 1000000ull;
        if (next_ns < now_ns())
            next_ns = now_ns(); /* it can't keep up, or stood still: never catch up in a burst */
        sleep_until(next_ns);
    }
    return NULL;
}
