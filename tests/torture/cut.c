/*
 * cut.c: preloaded into a program, makes the disk under LT_CUT_MOUNT lose
 * what was not flushed after a call that is named by its number; or makes
 * flushes slow; or makes them lie.
 *
 * Calls that change the file system of LT_CUT_MOUNT are counted from 1, in
 * the order in which they return, over all threads.  Everything is said in
 * the environment:
 *
 *   LT_CUT_MOUNT    the mount point; the only one that is compulsory
 *   LT_CUT_LOG      append a line for each call to this file, which must be
 *                   on another file system
 *   LT_CUT_AT       after this call: shut the file system down without
 *                   flushing anything, and kill the process
 *   LT_CUT_SYNC_AT  after this call: what another program on the same disk
 *                   does, as LT_CUT_SYNC says: "journal" flushes a file of
 *                   its own, and with it the journal; "all" is sync(1)
 *   LT_CUT_LIE      flushes of a file whose path ends in this are not done,
 *                   and succeed all the same
 *   LT_CUT_SLOW     of files whose path has this in it, flushes take
 *                   LT_CUT_FLUSH_MS longer, and the first LT_CUT_WRITES
 *                   calls that change their contents LT_CUT_WRITE_MS
 *
 * A line of the log is "<number> <thread> <call> <result> <details>": for a
 * call that gives a name, the directory's inode and the name; for others, an
 * inode.  Before a flush there is a line "0 <thread> begins 0 <inode>".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same of ext4 and xfs: EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN. */
#define GOING_DOWN		_IOR('X', 125, unsigned int)
#define WITHOUT_LOG_FLUSH	2u

static const char *mount_point;
static const char *lie, *slow, *neighbour;
static long cut_at, sync_at, flush_ms, write_ms;
static atomic_long n_slow_writes;
static dev_t device;
static int log_fd = -1;
static atomic_long n_calls;

static long number_of(const char *name)
{
	const char *text = getenv(name);

	return text ? atol(text) : 0;
}

/* At the beginning, and again by a process that was forked to be the program. */
__attribute__((constructor)) void lt_cut_start(void);
void lt_cut_start(void)
{
	const char *log = getenv("LT_CUT_LOG");
	struct stat st;

	mount_point = getenv("LT_CUT_MOUNT");
	if (!mount_point || stat(mount_point, &st) < 0) {
		mount_point = NULL;
		return;
	}
	device = st.st_dev;
	cut_at = number_of("LT_CUT_AT");
	sync_at = number_of("LT_CUT_SYNC_AT");
	neighbour = getenv("LT_CUT_SYNC");
	lie = getenv("LT_CUT_LIE");
	slow = getenv("LT_CUT_SLOW");
	flush_ms = number_of("LT_CUT_FLUSH_MS");
	write_ms = number_of("LT_CUT_WRITE_MS");
	n_slow_writes = number_of("LT_CUT_WRITES");
	if (log)
		log_fd = (int)syscall(SYS_openat, AT_FDCWD, log,
				      O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC,
				      0600);
}

static void *next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		abort();
	return found;
}

#define NEXT(f)	\
	static __typeof__(&f) real; \
	if (!real) \
		*(void **)&real = next(#f)

static bool is_ours(int fd)
{
	struct stat st;

	return mount_point && fstat(fd, &st) == 0 && st.st_dev == device;
}

/* Whether 'path' itself, not what it leads to, is on the disk. */
static bool is_there(int dir, const char *path)
{
	struct stat st;

	return mount_point &&
	       fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_dev == device;
}

/* Of the file that 'fd' is open for, into 'path'; empty if that fails. */
static size_t path_of(int fd, char *path, size_t n_avail)
{
	char name[64];
	ssize_t n;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, path, n_avail - 1);
	path[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static bool lies_about(int fd)
{
	char path[4096];
	size_t n, m;

	if (!lie)
		return false;
	n = path_of(fd, path, sizeof(path));
	m = strlen(lie);
	return n >= m && memcmp(path + n - m, lie, m) == 0;
}

static bool is_slow(int fd)
{
	char path[4096];

	return slow && path_of(fd, path, sizeof(path)) && strstr(path, slow);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char line[1024];
	va_list args;
	int n;

	if (log_fd < 0)
		return;
	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (n > 0)	/* in one piece: threads append to one file */
		syscall(SYS_write, log_fd, line, (size_t)n);
}

/*
 * A flush that is under way while the file system goes down may succeed all
 * the same: xfs looks whether something is still to be written, and finds that
 * nothing is.  With the power gone, no program would hear of that.
 */
static atomic_bool is_dark;

static void stay_in_the_dark(void)
{
	while (atomic_load(&is_dark))
		pause();
}

static void cut_the_power(void)
{
	unsigned int how = WITHOUT_LOG_FLUSH;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, mount_point,
			      O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	atomic_store(&is_dark, true);
	if (fd < 0 || ioctl(fd, GOING_DOWN, &how) < 0)
		say("0 %d cut %d\n", gettid(), errno);
	else
		say("0 %d cut 0\n", gettid());
	syscall(SYS_kill, getpid(), SIGKILL);
	for (;;)
		pause();
}

static void be_a_neighbour(void)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/neighbour", mount_point);
	fd = (int)syscall(SYS_openat, AT_FDCWD, path,
			  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (neighbour && strcmp(neighbour, "all") == 0) {
		syscall(SYS_syncfs, fd);
	} else {
		syscall(SYS_write, fd, "x", 1);
		syscall(SYS_fsync, fd);
	}
	syscall(SYS_close, fd);
	say("0 %d neighbour 0\n", gettid());
}

/* A call has returned: count it, write it down, do what is to be done now. */
__attribute__((format(printf, 3, 4))) static void
done(const char *call, long ret, const char *details, ...)
{
	int kept = errno;
	char text[512];
	va_list args;
	long n;

	stay_in_the_dark();
	n = atomic_fetch_add(&n_calls, 1) + 1;
	va_start(args, details);
	vsnprintf(text, sizeof(text), details, args);
	va_end(args);
	say("%ld %d %s %d %s\n", n, gettid(), call, ret < 0 ? kept : 0, text);
	if (n == sync_at)
		be_a_neighbour();
	if (n == cut_at)
		cut_the_power();
	errno = kept;
}

static unsigned long inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? (unsigned long)st.st_ino : 0;
}

/* Of the directory that 'path' is in. */
static unsigned long parent_of(int dir, const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[4096];
	struct stat st;

	if (!slash)
		return dir == AT_FDCWD ? 0 : inode_of(dir);
	snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path) + 1, path);
	return fstatat(dir, parent, &st, 0) == 0 ? (unsigned long)st.st_ino : 0;
}

static const char *last_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void take(long ms)
{
	struct timespec left = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

/* --- Flushes --------------------------------------------------------------- */

static int flush(const char *call, int (*real)(int), int fd)
{
	int ret;

	if (!is_ours(fd))
		return real(fd);
	say("0 %d begins 0 %lu\n", gettid(), inode_of(fd));
	if (flush_ms && is_slow(fd))
		take(flush_ms);
	ret = lies_about(fd) ? 0 : real(fd);
	done(call, ret, "%lu", inode_of(fd));
	return ret;
}

int fsync(int fd)
{
	NEXT(fsync);
	return flush("fsync", real, fd);
}

int fdatasync(int fd)
{
	NEXT(fdatasync);
	return flush("fdatasync", real, fd);
}

/* --- Contents -------------------------------------------------------------- */

static void before_a_write(int fd)
{
	if (write_ms && is_ours(fd) && is_slow(fd) &&
	    atomic_fetch_sub(&n_slow_writes, 1) > 0)
		take(write_ms);
}

#define CONTENT(type, f, params, args) \
type f params \
{ \
	type ret; \
\
	NEXT(f); \
	before_a_write(fd); \
	ret = real args; \
	if (is_ours(fd)) \
		done(#f, (long)ret, "%lu", inode_of(fd)); \
	return ret; \
}

CONTENT(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
CONTENT(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
CONTENT(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at),
	(fd, p, n, at))
CONTENT(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at),
	(fd, p, n, at))
CONTENT(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at),
	(fd, v, n, at))
CONTENT(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t at),
	(fd, v, n, at))
CONTENT(int, ftruncate, (int fd, off_t n), (fd, n))
CONTENT(int, ftruncate64, (int fd, off64_t n), (fd, n))
CONTENT(int, fallocate, (int fd, int mode, off_t at, off_t n),
	(fd, mode, at, n))
CONTENT(int, fallocate64, (int fd, int mode, off64_t at, off64_t n),
	(fd, mode, at, n))
CONTENT(int, posix_fallocate, (int fd, off_t at, off_t n), (fd, at, n))
CONTENT(int, posix_fallocate64, (int fd, off64_t at, off64_t n), (fd, at, n))
CONTENT(int, fchmod, (int fd, mode_t mode), (fd, mode))

/* --- Names ----------------------------------------------------------------- */

#define OPEN(f, params, args) \
int f params \
{ \
	mode_t mode = 0; \
	va_list more; \
	int fd; \
\
	NEXT(f); \
	if (flags & O_CREAT) { \
		va_start(more, flags); \
		mode = va_arg(more, mode_t); \
		va_end(more); \
	} \
	fd = real args; \
	if (fd >= 0 && flags & (O_CREAT | O_TRUNC) && is_ours(fd)) \
		done(#f, fd, "%lu", inode_of(fd)); \
	return fd; \
}

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int dir, const char *path, int flags, ...),
     (dir, path, flags, mode))
OPEN(openat64, (int dir, const char *path, int flags, ...),
     (dir, path, flags, mode))

/* 'dir' and 'path' name what is there after the call. */
#define NAME(f, params, args, dir, path) \
int f params \
{ \
	int ret; \
\
	NEXT(f); \
	ret = real args; \
	if (ret == 0 && is_there(dir, path)) \
		done(#f, ret, "%lu %s", parent_of(dir, path), last_of(path)); \
	return ret; \
}

NAME(link, (const char *old, const char *name), (old, name), AT_FDCWD, name)
NAME(linkat, (int from, const char *old, int to, const char *name, int flags),
     (from, old, to, name, flags), to, name)
NAME(symlink, (const char *old, const char *name), (old, name), AT_FDCWD, name)
NAME(rename, (const char *old, const char *name), (old, name), AT_FDCWD, name)
NAME(renameat, (int from, const char *old, int to, const char *name),
     (from, old, to, name), to, name)
NAME(renameat2, (int from, const char *old, int to, const char *name,
		 unsigned int flags), (from, old, to, name, flags), to, name)
NAME(mkdir, (const char *name, mode_t mode), (name, mode), AT_FDCWD, name)
NAME(mkdirat, (int dir, const char *name, mode_t mode), (dir, name, mode), dir,
     name)

/* 'dir' and 'path' name what was there before the call. */
#define GONE(f, params, args, dir, path) \
int f params \
{ \
	bool ours = is_there(dir, path); \
	int ret; \
\
	NEXT(f); \
	ret = real args; \
	if (ours) \
		done(#f, ret, "%s", last_of(path)); \
	return ret; \
}

GONE(unlink, (const char *path), (path), AT_FDCWD, path)
GONE(unlinkat, (int dir, const char *path, int flags), (dir, path, flags), dir,
     path)
GONE(rmdir, (const char *path), (path), AT_FDCWD, path)
