/* Writes numbered, checksummed blocks round and round a disk, each flushed before its number is told to anybody. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workload.h"

static void fill(uint64_t *block, uint64_t sequence)
{
    uint64_t checksum = 0;

    block[0] = 0x6c61676a6d76696cull; /* "livmjgal" */
    block[1] = sequence;
    for (int word = 3; word < BLOCK_BYTES / 8; word++) {
        block[word] = mix(sequence * BLOCK_BYTES + word);
        checksum = mix(checksum ^ block[word]);
    }
    block[2] = checksum;
}

void *write_journal(void *argument)
{
    const struct settings *settings = argument;
    int disk = open("/dev/vda", O_RDWR | O_DIRECT);
    off_t length = disk < 0 ? 0 : lseek(disk, 0, SEEK_END);
    uint64_t block_count = length / BLOCK_BYTES, *block = NULL;

    if (disk < 0) {
        say("no disk, no journal");
        return NULL;
    }
    if (!block_count || posix_memalign((void **)&block, BLOCK_BYTES, BLOCK_BYTES) != 0) {
        fault("journal: the disk has %lld bytes", (long long)length);
        return NULL;
    }
    for (uint64_t sequence = 1, next_ns = now_ns();; sequence++) {
        fill(block, sequence);
        if (pwrite(disk, block, BLOCK_BYTES, sequence % block_count * BLOCK_BYTES) != BLOCK_BYTES || fsync(disk) != 0)
            fault("journal: block %llu: %s", (unsigned long long)sequence, strerror(errno));
        else
            journal_sequence = sequence;
        next_ns += settings->journal_ms * 1000000;
        if (next_ns < now_ns())
            next_ns = now_ns();
        sleep_until(next_ns);
    }
}
