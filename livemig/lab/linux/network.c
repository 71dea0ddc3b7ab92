/* Echoes over TCP and UDP, and streams over TCP. A record that is not the next one is a fault: TCP may neither lose nor repeat. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "workload.h"

static int bound(int type, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, descriptor = socket(AF_INET, type, 0);

    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) != 0 ||
        (type == SOCK_STREAM && listen(descriptor, 64) != 0))
        fault("port %d can't be served", port);
    return descriptor;
}

static int transfer(int descriptor, void *data, size_t length, int sends)
{
    for (size_t done = 0; done < length;) {
        ssize_t count = sends ? send(descriptor, (char *)data + done, length - done, 0)
                              : recv(descriptor, (char *)data + done, length - done, 0);

        if (count <= 0)
            return 0;
        done += count;
    }
    return 1;
}

/* Who waits on the network goes before what the guest does besides, the kernel's own work after a move included. */
static void go_first(void)
{
    struct sched_param first = {.sched_priority = 10};

    pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
}

/* A record is its sequence number and words derived from that. */
static int is_record(const uint64_t *record, uint64_t sequence)
{
    if (record[0] != sequence)
        return 0;
    for (int word = 1; word < RECORD_BYTES / 8; word++)
        if (record[word] != mix(sequence + word))
            return 0;
    return 1;
}

static void *echo_session(void *argument)
{
    int descriptor = (int)(intptr_t)argument, on = 1;
    uint64_t record[RECORD_BYTES / 8];

    go_first();
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (uint64_t sequence = 1; transfer(descriptor, record, sizeof record, 0); sequence++) {
        if (!is_record(record, sequence)) {
            fault("tcp: record %llu is not what was sent", (unsigned long long)sequence);
            break;
        }
        if (!transfer(descriptor, record, sizeof record, 1))
            break;
    }
    close(descriptor);
    return NULL;
}

/* Sends numbered records at a steady pace: what a client sees of it stops and goes on with the guest. */
static void *stream_session(void *argument)
{
    int descriptor = (int)(intptr_t)argument, on = 1;
    uint64_t record[RECORD_BYTES / 8], next_ns = now_ns();

    go_first();
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (uint64_t sequence = 1;; sequence++) {
        record[0] = sequence;
        for (int word = 1; word < RECORD_BYTES / 8; word++)
            record[word] = mix(sequence + word);
        if (!transfer(descriptor, record, sizeof record, 1))
            break;
        next_ns += STREAM_INTERVAL_MS * 1000000ull;
        if (next_ns < now_ns())
            next_ns = now_ns();
        sleep_until(next_ns);
    }
    close(descriptor);
    return NULL;
}

static void *journal_session(void *argument)
{
    int descriptor = (int)(intptr_t)argument, on = 1;

    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (uint64_t told = 0;; sleep_until(now_ns() + 2000000)) {
        uint64_t sequence = journal_sequence;

        if (sequence != told && !transfer(descriptor, &sequence, sizeof sequence, 1))
            break;
        told = sequence;
    }
    close(descriptor);
    return NULL;
}

static void serve(int port, void *(*session)(void *))
{
    int listening = bound(SOCK_STREAM, port);

    go_first(); /* else a busy session keeps new ones from being accepted */
    for (;;) {
        int descriptor = accept(listening, NULL, NULL);
        pthread_t thread;

        if (descriptor < 0)
            continue;
        if (pthread_create(&thread, NULL, session, (void *)(intptr_t)descriptor) == 0)
            pthread_detach(thread);
        else
            close(descriptor);
    }
}

void *echo_tcp(void *unused)
{
    (void)unused;
    serve(ECHO_PORT, echo_session);
    return NULL;
}

void *stream_tcp(void *unused)
{
    (void)unused;
    serve(STREAM_PORT, stream_session);
    return NULL;
}

/* Tells each client the number of the last block that is on the disk for certain. */
void *serve_journal(void *unused)
{
    (void)unused;
    serve(JOURNAL_PORT, journal_session);
    return NULL;
}

void *echo_udp(void *unused)
{
    int descriptor = bound(SOCK_DGRAM, ECHO_PORT);
    char data[2048];

    (void)unused;
    go_first();
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        ssize_t count = recvfrom(descriptor, data, sizeof data, 0, (struct sockaddr *)&peer, &length);

        if (count >= 0)
            sendto(descriptor, data, count, 0, (struct sockaddr *)&peer, length);
    }
}
