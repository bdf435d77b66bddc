/* A wall clock that jumps, for LD_PRELOAD: what the file TORTURE_CLOCK says is added to what time it is.
 *
 * The file holds two 64-bit numbers, nanoseconds: how far the clock is off, and the time that it stands still
 * at (0: it runs). They may change at any moment. Monotonic clocks, and the times that the kernel gives to
 * files, stay as they are: so it is when an administrator or an NTP client sets the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct clock_file {
    volatile int64_t off_ns;
    volatile int64_t stands_ns;
};

static struct clock_file *says;

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("TORTURE_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        abort(); /* a run without it would show nothing */
    void *found = mmap(NULL, sizeof(*says), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (found == MAP_FAILED)
        abort();
    says = found;
}

static int is_wall(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    if (!failed && is_wall(id) && says) {
        int64_t ns = now->tv_sec * INT64_C(1000000000) + now->tv_nsec;
        ns = says->stands_ns ? says->stands_ns : ns + says->off_ns;
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return failed;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}
