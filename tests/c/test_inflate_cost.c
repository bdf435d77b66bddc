/*
 * test_inflate_cost.c: what streams cost that were made to cost much: blocks
 * without a body, so that no bound on output sees them.
 *
 * For each kind, one line: nanoseconds per byte of input by our own inflater and
 * by zlib, and the kind.  CPU time, the least of some rounds that take turns.
 */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <time.h>

#define ZLIB_CONST
#include <zlib.h>

#include "codec/inflate/lt_inflate.h"
#include "lt_api_c.h"

#define STREAM_NBYTES	((size_t)150 << 10)
#define N_ROUNDS	5

static u8 stream[STREAM_NBYTES + 1024];
static size_t n_bits;

static void put(u32 bits, u32 n)
{
	for (u32 i = 0; i < n; i++, n_bits++)
		stream[n_bits / 8] |= (u8)((bits >> i & 1) << n_bits % 8);
}

/* A code, which comes from its last bit on. */
static void put_code(u32 code, u32 n)
{
	while (n--)
		put(code >> n & 1, 1);
}

/*
 * A block of nothing but its end, which has a code of 'bits' bits, as have the
 * 'n' symbols before it, 0 or enough to make the code complete.  The header is
 * as short as it can be: runs of zeros (18) and of the length (16), with codes
 * of three bits and of one.
 */
static void put_block(u32 bits, u32 n)
{
	static const u8 order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12,
				   3, 13, 2, 14, 1, 15};
	const u32 zeros = 256 - n;
	u32 last = 0, left = n + 1;

	while (order[last] != bits)
		last++;
	if (last < 3)
		last = 3;
	put(2 << 1, 3);
	put(0, 5 + 5);
	put(last + 1 - 4, 4);
	/* 16: one bit, 18 and 0: three, the length: two. */
	for (u32 i = 0; i <= last; i++)
		put(order[i] == 16 ? 1 : order[i] == bits ? 2 :
		    order[i] == 18 || order[i] == 0 ? 3 : 0, 3);
	for (u32 z = zeros; z; ) {
		const u32 run = z > 138 ? (z - 138 < 11 ? 127 : 138) : z;

		if (run < 11) {
			put_code(6, 3);
			z--;
			continue;
		}
		put_code(7, 3);
		put(run - 11, 7);
		z -= run;
	}
	put_code(2, 2);
	for (left--; left >= 3; ) {
		const u32 run = left > 6 ? 6 : left;

		put_code(0, 1);
		put(run - 3, 2);
		left -= run;
	}
	while (left--)
		put_code(2, 2);
	put_code(6, 3);			/* no distances */
	/* The end is the last of its code, or all of it. */
	put_code(n ? (1u << bits) - 1 : 0, bits);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fail(const char *why)
{
	fprintf(stderr, "%s\n", why);
	exit(1);
}

static double by_own(struct lt_inflate *f, size_t nbytes)
{
	u8 out[1], surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes;
	struct lt_cursor io = {.in = stream, .in_nbytes = nbytes, .out = out,
			       .out_nbytes = 1};
	const double began = now();

	lt_inflate_reset(f);
	if (lt_inflate_step(f, &io, surplus, &surplus_nbytes) != LT_OK ||
	    io.in_nbytes || !io.out_nbytes)
		fail("the blocks are not empty, or not valid");
	return (now() - began) / (double)nbytes;
}

static double by_zlib(z_stream *z, size_t nbytes)
{
	u8 out[1];
	const double began = now();

	inflateReset(z);
	z->next_in = stream;
	z->avail_in = (u32)nbytes;
	z->next_out = out;
	z->avail_out = 1;
	if (inflate(z, Z_NO_FLUSH) != Z_OK || z->avail_in || !z->avail_out)
		fail("zlib has another opinion");
	return (now() - began) / (double)nbytes;
}

static void measure(struct lt_inflate *f, z_stream *z, const char *kind)
{
	double own = 1e9, theirs = 1e9;

	for (u32 i = 0; i < N_ROUNDS; i++) {
		const double a = by_own(f, n_bits / 8);
		const double b = by_zlib(z, n_bits / 8);

		own = a < own ? a : own;
		theirs = b < theirs ? b : theirs;
	}
	printf("%.1f %.1f %s\n", own, theirs, kind);
	memset(stream, 0, sizeof(stream));
	n_bits = 0;
}

int main(void)
{
	z_stream z = {0};
	struct lt_inflate *f;
	char kind[64];

	if (lt_inflater_use("own") != LT_OK || inflateInit2(&z, -15) != Z_OK)
		fail("no decoder");
	f = lt_inflate_renew(NULL);
	if (!f)
		fail("no memory");
	while (n_bits < 8 * STREAM_NBYTES)
		put(1 << 1, 3 + 7);
	measure(f, &z, "fixed codes");
	while (n_bits < 8 * STREAM_NBYTES) {
		put(0, 3);
		n_bits = (n_bits + 7) / 8 * 8;
		put(0xffff0000, 32);
	}
	measure(f, &z, "stored");
	for (u32 bits = 1; bits <= 8; bits++) {
		while (n_bits < 8 * STREAM_NBYTES)
			put_block(bits, bits == 1 ? 0 : (1u << bits) - 1);
		snprintf(kind, sizeof(kind), "codes of %u bits", bits);
		measure(f, &z, kind);
	}
	inflateEnd(&z);
	lt_inflate_free(f);
	return 0;
}
