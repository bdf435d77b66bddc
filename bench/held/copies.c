/*
 * copies.c: receive, buffer, file: what the way of bytes through memory costs.
 *
 *	copies NBYTES ROUNDS TMPFS-DIRECTORY DISK-DIRECTORY
 *
 * A thread sends NBYTES over a TCP connection on loopback; this one receives
 * them into a ring of buffers of 1 MiB, as the pool's are, and writes each that
 * is full to a new file.  Every variant runs once a round.  CPU is of this
 * thread, wall includes an fsync.  Files are removed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BUFFER_NBYTES = 1 << 20,
	N_BUFFERS = 32,
	BEHIND_NBYTES = 8 << 20,
	MAX_ROUNDS = 100,
};

enum how {
	NOT,		/* received, and that is all */
	PLAIN,
	BEHIND,		/* sync_file_range of each 8 MiB that are written */
	DIRECT,		/* O_DIRECT */
};

struct variant {
	const char *name;
	size_t recv_nbytes;
	bool huge;
	enum how how;
	bool disk;
	double cpu_s[MAX_ROUNDS], wall_s[MAX_ROUNDS];
	uint64_t n_recv;
	bool refused;			/* by the file system */
};

static struct variant variants[] = {
	{.name = "receive, 64 KiB", .recv_nbytes = 64 << 10},
	{.name = "receive, 256 KiB", .recv_nbytes = 256 << 10},
	{.name = "receive, 1 MiB", .recv_nbytes = 1 << 20},
	{.name = "receive, 1 MiB, huge pages", .recv_nbytes = 1 << 20, .huge = true},
	{.name = "to tmpfs, 64 KiB", .recv_nbytes = 64 << 10, .how = PLAIN},
	{.name = "to tmpfs, 1 MiB", .recv_nbytes = 1 << 20, .how = PLAIN},
	{.name = "to tmpfs, 1 MiB, huge pages", .recv_nbytes = 1 << 20, .huge = true,
	 .how = PLAIN},
	{.name = "to disk, 1 MiB", .recv_nbytes = 1 << 20, .how = PLAIN, .disk = true},
	{.name = "to disk, 1 MiB, write-behind", .recv_nbytes = 1 << 20, .how = BEHIND,
	 .disk = true},
	{.name = "to disk, 1 MiB, O_DIRECT", .recv_nbytes = 1 << 20, .how = DIRECT,
	 .disk = true},
};

enum { N_VARIANTS = sizeof(variants) / sizeof(variants[0]) };

static uint8_t source[BUFFER_NBYTES];

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "copies: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- the sender ----------------------------------------------------------- */

struct sender {
	int fd;
	uint64_t nbytes;
};

static void *send_all(void *arg)
{
	const struct sender *s = arg;
	uint64_t left = s->nbytes;

	while (left) {
		size_t want = left < sizeof(source) ? (size_t)left : sizeof(source);
		ssize_t n = send(s->fd, source, want, MSG_NOSIGNAL);

		if (n < 0)
			die("send");
		left -= (uint64_t)n;
	}
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void connect_pair(int *near_ret, int *far_ret)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*near_ret = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || *near_ret < 0 ||
	    bind(listener, (struct sockaddr *)&addr, len) != 0 ||
	    listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &len) != 0 ||
	    connect(*near_ret, (struct sockaddr *)&addr, len) != 0)
		die("connection over loopback");
	*far_ret = accept(listener, NULL, NULL);
	if (*far_ret < 0)
		die("accept");
	close(listener);
}

/* --- the receiver ----------------------------------------------------------- */

static uint8_t *ring_new(bool huge)
{
	size_t nbytes = (size_t)N_BUFFERS * BUFFER_NBYTES;
	void *p = mmap(NULL, nbytes + (2 << 20), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *ring;

	if (p == MAP_FAILED)
		die("mmap");
	ring = (uint8_t *)(((uintptr_t)p + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
	madvise(ring, nbytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* No page fault of a first use is anyone's work. */
	memset(ring, 1, nbytes);
	return ring;
}

static int open_file(const struct variant *v, const char *path)
{
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;

	return open(path, flags | (v->how == DIRECT ? O_DIRECT : 0), 0600);
}

static void write_buffer(const struct variant *v, int fd, const uint8_t *buf,
			 size_t nbytes, uint64_t at)
{
	size_t done = 0;

	while (done < nbytes) {
		ssize_t n = pwrite(fd, buf + done, nbytes - done,
				   (off_t)(at + done));

		if (n <= 0)
			die("pwrite");
		done += (size_t)n;
	}
	at += nbytes;
	if (v->how == BEHIND && at % BEHIND_NBYTES == 0)
		sync_file_range(fd, (off_t)(at - BEHIND_NBYTES), BEHIND_NBYTES,
				SYNC_FILE_RANGE_WRITE);
}

/* False: the connection has ended.  The buffer is full but for the last. */
static size_t fill_buffer(struct variant *v, int fd, uint8_t *buf)
{
	size_t filled = 0;

	while (filled < BUFFER_NBYTES) {
		size_t room = BUFFER_NBYTES - filled;
		ssize_t n = recv(fd, buf + filled,
				 room < v->recv_nbytes ? room : v->recv_nbytes, 0);

		if (n < 0)
			die("recv");
		if (n == 0)
			break;
		v->n_recv++;
		filled += (size_t)n;
	}
	return filled;
}

static void run_once(struct variant *v, int round, uint64_t nbytes,
		     uint8_t *ring, const char *path)
{
	struct sender sender = {.nbytes = nbytes};
	double wall, cpu;
	uint64_t at = 0;
	pthread_t thread;
	size_t n;
	int fd = -1, near;

	if (v->how != NOT) {
		fd = open_file(v, path);
		if (fd < 0 && errno == EINVAL) {
			v->refused = true;
			return;
		}
		if (fd < 0)
			die(path);
	}
	connect_pair(&near, &sender.fd);
	wall = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	if (pthread_create(&thread, NULL, send_all, &sender) != 0)
		die("pthread_create");
	v->n_recv = 0;
	for (int i = 0; (n = fill_buffer(v, near, ring + (size_t)i * BUFFER_NBYTES)) > 0;
	     i = (i + 1) % N_BUFFERS) {
		if (fd >= 0)
			write_buffer(v, fd, ring + (size_t)i * BUFFER_NBYTES, n, at);
		at += n;
	}
	if (fd >= 0 && fsync(fd) != 0)
		die("fsync");
	v->cpu_s[round] = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	v->wall_s[round] = now(CLOCK_MONOTONIC) - wall;
	pthread_join(thread, NULL);
	close(near);
	close(sender.fd);
	if (fd >= 0) {
		close(fd);
		unlink(path);
	}
	if (at != nbytes)
		die("bytes are missing");
}

static void print_numbers(const char *name, const double *values, int n)
{
	printf("\"%s\": [", name);
	for (int i = 0; i < n; i++)
		printf("%s%.6f", i ? ", " : "", values[i]);
	printf("]");
}

int main(int argc, char **argv)
{
	uint64_t nbytes = argc == 5 ? strtoull(argv[1], NULL, 10) : 0;
	int rounds = argc == 5 ? atoi(argv[2]) : 0;
	char tmpfs[4096], disk[4096];
	uint8_t *small, *huge;

	errno = EINVAL;
	if (nbytes == 0 || nbytes % BUFFER_NBYTES || rounds < 1 || rounds > MAX_ROUNDS)
		die("copies NBYTES ROUNDS TMPFS-DIRECTORY DISK-DIRECTORY");
	snprintf(tmpfs, sizeof(tmpfs), "%s/copies.tmp", argv[3]);
	snprintf(disk, sizeof(disk), "%s/copies.tmp", argv[4]);
	memset(source, 'x', sizeof(source));
	small = ring_new(false);
	huge = ring_new(true);
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < N_VARIANTS; i++) {
			struct variant *v = &variants[(i + r) % N_VARIANTS];

			run_once(v, r, nbytes, v->huge ? huge : small,
				 v->disk ? disk : tmpfs);
		}
	printf("{\"nbytes\": %llu, \"variants\": [\n", (unsigned long long)nbytes);
	for (int i = 0, first = 1; i < N_VARIANTS; i++) {
		struct variant *v = &variants[i];

		if (v->refused)
			continue;
		printf("%s{\"name\": \"%s\", \"n_recv\": %llu, ", first ? "" : ",\n",
		       v->name, (unsigned long long)v->n_recv);
		print_numbers("cpu_s", v->cpu_s, rounds);
		printf(", ");
		print_numbers("wall_s", v->wall_s, rounds);
		printf("}");
		first = 0;
	}
	printf("]}\n");
	return 0;
}
