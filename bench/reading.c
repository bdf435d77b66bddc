/*
 * reading.c: what reading and hashing files costs, and nothing else.
 *
 *	reading LIST
 *
 * LIST has paths that end in NUL.  Each file is opened, read to its end in
 * pieces of 256 KiB and hashed, all into one SHA-256, by the C core's own
 * code.  Printed: the bytes, and the seconds of CPU and of wall time between
 * the first file and the last.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hash/lt_sha256.h"
#include "lt_api_c.h"

enum { PIECE_NBYTES = 256 << 10 };

static u8 piece[PIECE_NBYTES];

static void die(const char *what)
{
	fprintf(stderr, "reading: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* All of the file 'path', whose end is a NUL. */
static char *whole(const char *path, size_t *nbytes_ret)
{
	struct stat st;
	char *text;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	text = malloc(st.st_size + 1);
	if (!text || read(fd, text, st.st_size) != st.st_size)
		die(path);
	close(fd);
	*nbytes_ret = st.st_size;
	return text;
}

int main(int argc, char **argv)
{
	struct lt_sha256_state s;
	size_t list_nbytes, at;
	double cpu, wall;
	u64 nbytes = 0;
	u8 digest[32];
	char *list;

	if (argc != 2) {
		fputs("usage: reading LIST\n", stderr);
		return 2;
	}
	if (lt_kernel_use(NULL) != LT_OK)
		return 1;
	list = whole(argv[1], &list_nbytes);
	lt_sha256_init(&s);
	wall = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (at = 0; at < list_nbytes; at += strlen(list + at) + 1) {
		int fd = open(list + at, O_RDONLY | O_CLOEXEC);
		ssize_t n;

		if (fd < 0)
			die(list + at);
		while ((n = read(fd, piece, sizeof(piece))) > 0) {
			lt_sha256_update(&s, piece, n);
			nbytes += n;
		}
		if (n < 0)
			die(list + at);
		close(fd);
	}
	lt_sha256_final(&s, digest);
	printf("{\"nbytes\": %" PRIu64 ", \"cpu_s\": %.6f, \"wall_s\": %.6f}\n",
	       nbytes, now(CLOCK_PROCESS_CPUTIME_ID) - cpu,
	       now(CLOCK_MONOTONIC) - wall);
	free(list);
	return 0;
}
