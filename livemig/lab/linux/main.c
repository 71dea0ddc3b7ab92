/* The Linux guest's workload: becomes PID 1 after /init, starts every part, and beats on the serial port for ever. */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

_Atomic uint64_t pages_written, faults, journal_sequence;

static pthread_mutex_t saying = PTHREAD_MUTEX_INITIALIZER;

static void say_line(const char *kind, const char *format, va_list arguments)
{
    char line[256];
    int length = snprintf(line, sizeof line, "%s", kind);

    length += vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    pthread_mutex_lock(&saying);
    for (int written = 0; written < length;) {
        ssize_t count = write(1, line + written, length - written);

        if (count <= 0)
            break; /* nobody listens, and nobody else could be told */
        written += count;
    }
    pthread_mutex_unlock(&saying);
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say_line("", format, arguments);
    va_end(arguments);
}

void fault(const char *format, ...)
{
    va_list arguments;

    faults++;
    va_start(arguments, format);
    say_line("FAULT ", format, arguments);
    va_end(arguments);
}

uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

void sleep_until(uint64_t time_ns)
{
    struct timespec time = {.tv_sec = time_ns / 1000000000, .tv_nsec = time_ns % 1000000000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) != 0)
        ;
}

uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull; /* splitmix64 */
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

static uint64_t setting(const char *command_line, const char *name, uint64_t otherwise)
{
    const char *found = strstr(command_line, name);

    return found ? strtoull(found + strlen(name), NULL, 10) : otherwise;
}

static void start(void *(*part)(void *), void *settings)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, part, settings) != 0)
        fault("a thread can't be started");
}

int main(void)
{
    static struct settings settings;
    char command_line[2048] = "";
    FILE *file = fopen("/proc/cmdline", "r");

    if (file && !fgets(command_line, sizeof command_line, file))
        fault("the command line can't be read");
    settings.memory_bytes = setting(command_line, "livemig.memory=", 0);
    settings.rate_bytes_s = setting(command_line, "livemig.rate=", 0);
    settings.beat_ms = setting(command_line, "livemig.beat=", 100);
    settings.journal_ms = setting(command_line, "livemig.journal=", 10);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    start(echo_tcp, NULL);
    start(stream_tcp, NULL);
    start(echo_udp, NULL);
    start(serve_journal, NULL);
    start(write_memory, &settings);
    start(write_journal, &settings);
    say("ready");
    for (uint64_t beat = 1, next_ns = now_ns();; beat++) {
        say("beat %llu written %llu journal %llu faults %llu", (unsigned long long)beat,
            (unsigned long long)pages_written, (unsigned long long)journal_sequence, (unsigned long long)faults);
        next_ns += settings.beat_ms * 1000000;
        sleep_until(next_ns);
    }
}
