/*
 * A library to be preloaded into the commands of one case: it fails one of
 * their calls, or ends the process beside one, and keeps a trace.
 *
 * The calls are those by which files below one directory are opened, changed,
 * synced, mapped and locked, by whatever part of the program: Python, the C
 * core, SQLite.  They are counted over all threads and all processes of a
 * case, with one counter, in a file that all of them map: struct control.
 * preload.py writes that file and reads it afterwards; the layout of the
 * struct is known there, too.
 *
 * A call that is not below the directory, or of no kind that is asked for, goes
 * through as if this library were not there.  Descriptors are looked up in
 * /proc each time they are used: nothing is remembered that could be wrong.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What a call does.  One may be of several kinds. */
enum kind {
	OPEN	= 1 << 0,	/* gives a new descriptor */
	CHANGE	= 1 << 1,	/* of what is on the disk */
	SPACE	= 1 << 2,	/* may need some that is not there */
	WAIT	= 1 << 3,	/* may be interrupted by a signal */
	WRITE	= 1 << 4,	/* may do less than it was asked for */
	SYNC	= 1 << 5,
	LOCK	= 1 << 6,
	MAP	= 1 << 7,
};

enum action {
	COUNT,			/* do nothing else */
	FAIL_ONCE,
	FAIL_FROM,		/* that call, and all of these kinds after it */
	KILL_BEFORE,
	KILL_AFTER,
	KILL_WITHIN,		/* after half of a write */
	SHORTEN,		/* do half of a write, which is no error */
	KILL_LATER,		/* 'at' microseconds after the first call */
};

enum verdict { PASS, FAIL, HALVE, PASS_AND_DIE, HALVE_AND_DIE };

#define MAGIC		0x31746c7561664c54ULL	/* "TLfault1" */
#define TRACE_NBYTES	(1 << 20)

struct control {
	uint64_t magic;
	uint32_t kinds;			/* that are counted */
	uint32_t action;		/* at the call number 'at', from 1 on */
	int32_t error;			/* that a failed call is failed with */
	uint32_t padding;
	uint64_t at;
	_Atomic uint64_t n_calls;
	_Atomic uint64_t n_faults;
	_Atomic uint64_t first_ns;	/* when calls were made: CLOCK_MONOTONIC */
	_Atomic uint64_t last_ns;
	_Atomic uint64_t trace_nbytes;	/* may be more than there is room for */
	char root[PATH_MAX];		/* without a slash at its end */
	char trace[TRACE_NBYTES];	/* lines: number, fault or -, pid,
					 * kinds, name, path */
};

static struct control *control;

/* --- where a call goes --------------------------------------------------- */

static const char *below_root(const char *path)
{
	size_t n = strlen(control->root);

	if (strncmp(path, control->root, n) || (path[n] && path[n] != '/'))
		return NULL;
	return path;
}

static const char *follow(const char *link, char *buffer)
{
	ssize_t n = readlink(link, buffer, PATH_MAX - 1);

	if (n < 0)
		return NULL;
	buffer[n] = 0;
	return buffer;
}

/* The path of a descriptor, if that is below the root; else NULL. */
static const char *at_fd(int fd, char *buffer)
{
	char link[32];

	if (!control || fd < 0)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return follow(link, buffer) ? below_root(buffer) : NULL;
}

/* The same of a name as the *at calls have it. */
static const char *at_name(int dir_fd, const char *name, char *buffer)
{
	char link[32] = "/proc/self/cwd";
	size_t n;

	if (!control || !name)
		return NULL;
	if (name[0] == '/')
		return below_root(name);
	if (dir_fd != AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dir_fd);
	if (!follow(link, buffer) || !below_root(buffer))
		return NULL;
	n = strlen(buffer);
	snprintf(buffer + n, PATH_MAX - n, "/%s", name);
	return buffer;
}

/* --- what becomes of it -------------------------------------------------- */

static void trace(uint64_t number, const char *fault, unsigned int kinds,
		  const char *name, const char *path)
{
	char line[PATH_MAX + 64];
	uint64_t start;
	int n;

	n = snprintf(line, sizeof(line), "%llu %s %d %u %s %s\n",
		     (unsigned long long)number, fault, (int)getpid(), kinds,
		     name, path + strlen(control->root));
	if (n < 0 || (size_t)n >= sizeof(line))
		return;
	start = atomic_fetch_add(&control->trace_nbytes, (uint64_t)n);
	if (start + (uint64_t)n <= TRACE_NBYTES)
		memcpy(control->trace + start, line, (size_t)n);
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void *die_later(void *unused)
{
	struct timespec left = {
		.tv_sec = (time_t)(control->at / 1000000),
		.tv_nsec = (long)(control->at % 1000000 * 1000),
	};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
	atomic_fetch_add(&control->n_faults, 1);
	trace(atomic_load(&control->n_calls), "later", 0, "-", control->root);
	die();
	return unused;
}

static void note_time(uint64_t number)
{
	struct timespec now;
	uint64_t ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	if (number == 1)
		atomic_store(&control->first_ns, ns);
	atomic_store(&control->last_ns, ns);
}

/*
 * Count a call on 'path', NULL for one that is none of ours.  FAIL has set
 * errno; all others leave it as it was.
 */
static enum verdict judge(const char *name, unsigned int kinds,
			  const char *path)
{
	static const char *const words[] = {"-", "failed", "failed", "before",
					    "after", "within", "shortened"};
	enum action action;
	uint64_t number;
	pthread_t thread;

	if (!path || !(kinds & control->kinds))
		return PASS;
	action = (enum action)control->action;
	number = atomic_fetch_add(&control->n_calls, 1) + 1;
	note_time(number);
	if (action == KILL_LATER && number == 1 &&
	    pthread_create(&thread, NULL, die_later, NULL))
		abort();
	if (action == COUNT || action == KILL_LATER || number < control->at ||
	    (number > control->at && action != FAIL_FROM)) {
		trace(number, "-", kinds, name, path);
		return PASS;
	}
	atomic_fetch_add(&control->n_faults, 1);
	trace(number, words[action], kinds, name, path);
	switch (action) {
	case FAIL_ONCE:
	case FAIL_FROM:
		errno = control->error;
		return FAIL;
	case KILL_BEFORE:
		die();
		return PASS;
	case KILL_AFTER:
		return PASS_AND_DIE;
	case KILL_WITHIN:
		return HALVE_AND_DIE;
	case SHORTEN:
		return HALVE;
	default:
		return PASS;
	}
}

/* errno before, which no look at /proc may change. */
static enum verdict judge_fd(const char *name, unsigned int kinds, int fd)
{
	char buffer[PATH_MAX];
	int before = errno;
	const char *path = at_fd(fd, buffer);

	errno = before;
	return judge(name, kinds, path);
}

static enum verdict judge_name(const char *name, unsigned int kinds,
			       int dir_fd, const char *path)
{
	char buffer[PATH_MAX];
	int before = errno;

	path = at_name(dir_fd, path, buffer);
	errno = before;
	return judge(name, kinds, path);
}

/* --- the calls ----------------------------------------------------------- */

#define NEXT(name)							\
	static __typeof__(&name) next;					\
	if (!next)							\
		*(void **)&next = dlsym(RTLD_NEXT, #name)

/* Ends a wrapper: 'bad' is what a call returns that failed. */
#define RETURN(verdict, type, bad, call)				\
	do {								\
		type ret;						\
									\
		if ((verdict) == FAIL)					\
			return (bad);					\
		ret = (call);						\
		if ((verdict) == PASS_AND_DIE ||			\
		    (verdict) == HALVE_AND_DIE)				\
			die();						\
		return ret;						\
	} while (0)

#define BY_FD(type, name, params, args, kinds, fd, bad)			\
type name params							\
{									\
	NEXT(name);							\
	enum verdict verdict = judge_fd(#name, kinds, fd);		\
									\
	RETURN(verdict, type, bad, next args);				\
}

#define BY_NAME(name, params, args, kinds, dir_fd, path)		\
int name params								\
{									\
	NEXT(name);							\
	enum verdict verdict = judge_name(#name, kinds, dir_fd, path);	\
									\
	RETURN(verdict, int, -1, next args);				\
}

/* 'size' is the parameter that says how much to write. */
#define WRITES(type, name, params, args, fd, size)			\
type name params							\
{									\
	NEXT(name);							\
	enum verdict verdict = judge_fd(#name, CHANGE | SPACE | WAIT |	\
					WRITE, fd);			\
									\
	if (verdict == HALVE || verdict == HALVE_AND_DIE)		\
		size = (size + 1) / 2;					\
	RETURN(verdict, type, -1, next args);				\
}

#define OPENS(name, params, args, dir_fd)				\
int name params								\
{									\
	NEXT(name);							\
	mode_t mode = 0;						\
	enum verdict verdict;						\
									\
	if (flags & (O_CREAT | __O_TMPFILE)) {				\
		va_list list;						\
									\
		va_start(list, flags);					\
		mode = va_arg(list, mode_t);				\
		va_end(list);						\
	}								\
	verdict = judge_name(#name, opening(flags), dir_fd, path);	\
	RETURN(verdict, int, -1, next args);				\
}

static unsigned int opening(int flags)
{
	unsigned int kinds = OPEN | WAIT;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)))
		kinds |= CHANGE;
	if (flags & (O_CREAT | __O_TMPFILE))
		kinds |= SPACE;
	return kinds;
}

OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode),
      AT_FDCWD)
OPENS(openat, (int dir, const char *path, int flags, ...),
      (dir, path, flags, mode), dir)
OPENS(openat64, (int dir, const char *path, int flags, ...),
      (dir, path, flags, mode), dir)

/* POSIX lets it fail in many ways, but not by interruption. */
DIR *opendir(const char *path)
{
	NEXT(opendir);
	enum verdict verdict = judge_name("opendir", OPEN, AT_FDCWD, path);

	RETURN(verdict, DIR *, NULL, next(path));
}

WRITES(ssize_t, write, (int fd, const void *buffer, size_t size),
       (fd, buffer, size), fd > 2 ? fd : -1, size)
WRITES(ssize_t, pwrite, (int fd, const void *buffer, size_t size, off_t at),
       (fd, buffer, size, at), fd, size)
WRITES(ssize_t, pwrite64,
       (int fd, const void *buffer, size_t size, off64_t at),
       (fd, buffer, size, at), fd, size)
WRITES(ssize_t, writev, (int fd, const struct iovec *list, int n),
       (fd, list, n), fd > 2 ? fd : -1, n)
WRITES(ssize_t, pwritev, (int fd, const struct iovec *list, int n, off_t at),
       (fd, list, n, at), fd, n)
WRITES(ssize_t, pwritev64,
       (int fd, const struct iovec *list, int n, off64_t at),
       (fd, list, n, at), fd, n)
WRITES(ssize_t, pwritev2,
       (int fd, const struct iovec *list, int n, off_t at, int flags),
       (fd, list, n, at, flags), fd, n)
WRITES(ssize_t, pwritev64v2,
       (int fd, const struct iovec *list, int n, off64_t at, int flags),
       (fd, list, n, at, flags), fd, n)
WRITES(ssize_t, sendfile, (int to, int from, off_t *at, size_t size),
       (to, from, at, size), to, size)
WRITES(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t size),
       (to, from, at, size), to, size)
WRITES(ssize_t, copy_file_range,
       (int from, off64_t *at, int to, off64_t *to_at, size_t size,
	unsigned int flags),
       (from, at, to, to_at, size, flags), to, size)

BY_FD(int, fallocate, (int fd, int mode, off_t at, off_t size),
      (fd, mode, at, size), CHANGE | SPACE | WAIT, fd, -1)
BY_FD(int, fallocate64, (int fd, int mode, off64_t at, off64_t size),
      (fd, mode, at, size), CHANGE | SPACE | WAIT, fd, -1)
/* These two return the error, and leave errno alone. */
BY_FD(int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size),
      CHANGE | SPACE | WAIT, fd, control->error)
BY_FD(int, posix_fallocate64, (int fd, off64_t at, off64_t size),
      (fd, at, size), CHANGE | SPACE | WAIT, fd, control->error)
BY_FD(int, ftruncate, (int fd, off_t size), (fd, size),
      CHANGE | SPACE | WAIT, fd, -1)
BY_FD(int, ftruncate64, (int fd, off64_t size), (fd, size),
      CHANGE | SPACE | WAIT, fd, -1)
BY_NAME(truncate, (const char *path, off_t size), (path, size),
	CHANGE | SPACE | WAIT, AT_FDCWD, path)
BY_NAME(truncate64, (const char *path, off64_t size), (path, size),
	CHANGE | SPACE | WAIT, AT_FDCWD, path)

/* Space that was promised may be found missing when it is written back. */
BY_FD(int, fsync, (int fd), (fd), SYNC | SPACE | WAIT, fd, -1)
BY_FD(int, fdatasync, (int fd), (fd), SYNC | SPACE | WAIT, fd, -1)
BY_FD(int, syncfs, (int fd), (fd), SYNC | SPACE, fd, -1)
BY_FD(int, sync_file_range,
      (int fd, off64_t at, off64_t size, unsigned int flags),
      (fd, at, size, flags), SYNC | SPACE, fd, -1)

/* By where they lead to. */
BY_NAME(rename, (const char *from, const char *to), (from, to),
	CHANGE | SPACE, AT_FDCWD, to)
BY_NAME(renameat, (int dir, const char *from, int to_dir, const char *to),
	(dir, from, to_dir, to), CHANGE | SPACE, to_dir, to)
BY_NAME(renameat2,
	(int dir, const char *from, int to_dir, const char *to,
	 unsigned int flags),
	(dir, from, to_dir, to, flags), CHANGE | SPACE, to_dir, to)
BY_NAME(link, (const char *from, const char *to), (from, to),
	CHANGE | SPACE, AT_FDCWD, to)
BY_NAME(linkat,
	(int dir, const char *from, int to_dir, const char *to, int flags),
	(dir, from, to_dir, to, flags), CHANGE | SPACE, to_dir, to)
BY_NAME(symlink, (const char *target, const char *path), (target, path),
	CHANGE | SPACE, AT_FDCWD, path)
BY_NAME(symlinkat, (const char *target, int dir, const char *path),
	(target, dir, path), CHANGE | SPACE, dir, path)
BY_NAME(mkdir, (const char *path, mode_t mode), (path, mode),
	CHANGE | SPACE, AT_FDCWD, path)
BY_NAME(mkdirat, (int dir, const char *path, mode_t mode),
	(dir, path, mode), CHANGE | SPACE, dir, path)
BY_NAME(unlink, (const char *path), (path), CHANGE, AT_FDCWD, path)
BY_NAME(unlinkat, (int dir, const char *path, int flags), (dir, path, flags),
	CHANGE, dir, path)
BY_NAME(rmdir, (const char *path), (path), CHANGE, AT_FDCWD, path)

BY_FD(int, fchmod, (int fd, mode_t mode), (fd, mode), CHANGE, fd, -1)
BY_NAME(chmod, (const char *path, mode_t mode), (path, mode), CHANGE,
	AT_FDCWD, path)
BY_NAME(fchmodat, (int dir, const char *path, mode_t mode, int flags),
	(dir, path, mode, flags), CHANGE, dir, path)
BY_FD(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid), CHANGE, fd,
      -1)

BY_FD(void *, mmap,
      (void *at, size_t size, int access, int flags, int fd, off_t start),
      (at, size, access, flags, fd, start), MAP,
      flags & MAP_ANONYMOUS ? -1 : fd, MAP_FAILED)
BY_FD(void *, mmap64,
      (void *at, size_t size, int access, int flags, int fd, off64_t start),
      (at, size, access, flags, fd, start), MAP,
      flags & MAP_ANONYMOUS ? -1 : fd, MAP_FAILED)

/* Only who waits for a lock is interrupted; letting go of one does not fail. */
BY_FD(int, flock, (int fd, int how), (fd, how),
      LOCK | (how & LOCK_NB ? 0 : WAIT), how & LOCK_UN ? -1 : fd, -1)

static unsigned int locking(int command, const void *argument)
{
	switch (command) {
	case F_SETLK:
	case F_OFD_SETLK:
	case F_SETLKW:
	case F_OFD_SETLKW:
		if (((const struct flock *)argument)->l_type == F_UNLCK)
			return 0;
		return LOCK | (command == F_SETLKW || command == F_OFD_SETLKW ?
			       WAIT : 0);
	default:
		return 0;
	}
}

/* What the commands of fcntl take is a long at most. */
#define CONTROLS(name)							\
int name(int fd, int command, ...)					\
{									\
	NEXT(name);							\
	enum verdict verdict;						\
	void *argument;							\
	va_list list;							\
									\
	va_start(list, command);					\
	argument = va_arg(list, void *);				\
	va_end(list);							\
	verdict = judge_fd(#name, locking(command, argument), fd);	\
	RETURN(verdict, int, -1, next(fd, command, argument));		\
}

CONTROLS(fcntl)
CONTROLS(fcntl64)

/* --- the beginning ------------------------------------------------------- */

/* Also for a process that was forked by one that had nothing of all this. */
__attribute__((constructor)) void lt_faults_start(void)
{
	const char *path = getenv("LAYERTEE_FAULTS");
	struct control *found;
	int fd;

	if (!path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		perror(path);
		abort();
	}
	found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	close(fd);
	if (found == MAP_FAILED || found->magic != MAGIC) {
		fprintf(stderr, "%s: no such file of this library\n", path);
		abort();
	}
	control = found;
}
