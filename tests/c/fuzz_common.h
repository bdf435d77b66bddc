/*
 * fuzz_common.h: what both fuzz targets do: decode by lt_tee under a split
 * that the fuzzer chooses.
 *
 * The first byte of an input is flags, the second says how many of the bytes
 * after it are piece sizes (used in turn), the rest is the stream.
 *
 * Input pieces and output rooms end at pages that cannot be touched: libisal
 * is assembly, which no sanitizer sees into.
 */
#ifndef FUZZ_COMMON_H
#define FUZZ_COMMON_H

#include <stdio.h>
#include <sys/mman.h>

#include "lt_api_c.h"
#include "lt_common.h"

#define OUT_BUDGET ((size_t)1 << 20)
#define WINDOW_MAX ((u64)1 << 20)

#define CHECK(x) do {							\
	if (!(x)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);	\
		abort();						\
	}								\
} while (0)

struct input {
	u8 flags;
	const u8 *sizes;
	size_t n_sizes;
	const u8 *data;
	size_t nbytes;
};

static inline bool take_input(struct input *in, const u8 *p, size_t nbytes)
{
	if (nbytes < 2)
		return false;
	in->flags = p[0];
	in->n_sizes = lt_min(p[1] % 32, nbytes - 2);
	in->sizes = p + 2;
	in->data = p + 2 + in->n_sizes;
	in->nbytes = nbytes - 2 - in->n_sizes;
	return true;
}

/* 'nbytes' bytes that end where the accessible memory ends. */
static inline u8 *guarded(size_t which, size_t nbytes)
{
	static u8 *ends[2];

	CHECK(which < 2 && nbytes <= OUT_BUDGET);
	if (!ends[which]) {
		u8 *p = mmap(NULL, OUT_BUDGET + 4096, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(p != MAP_FAILED);
		CHECK(!mprotect(p + OUT_BUDGET, 4096, PROT_NONE));
		ends[which] = p + OUT_BUDGET;
	}
	return ends[which] - nbytes;
}

/* The next piece of input: any size, but not for ever none. */
static inline size_t piece(const struct input *in, size_t *turn, size_t left)
{
	size_t n = in->sizes[*turn % in->n_sizes];

	if (++*turn % 7 == 0)
		n++;
	return lt_min(n, left);
}

/* The room for output that goes with it. */
static inline size_t out_room(const struct input *in, size_t *turn, size_t left)
{
	return lt_min((size_t)64 * in->sizes[++*turn % in->n_sizes] + 1, left);
}

struct outcome {
	int status;
	struct lt_result result;
	size_t out_nbytes;
};

/* Decode into 'out', OUT_BUDGET bytes.  With 'split', pieces of input and of
 * output room follow the sizes; else all at once. */
static inline void decode(struct outcome *r, const struct input *in,
			  int format, bool check_crc, bool split, u8 *out)
{
	lt_tee *t = lt_tee_new(format, check_crc, OUT_BUDGET, WINDOW_MAX);
	size_t pos = 0, turn = 0;

	CHECK(t);
	memset(r, 0, sizeof(*r));
	for (;;) {
		size_t in_n = in->nbytes - pos;
		size_t room = OUT_BUDGET - r->out_nbytes;
		size_t taken, made;
		bool spare = false;
		u8 *from, *to;

		if (split && in->n_sizes) {
			in_n = piece(in, &turn, in_n);
			room = out_room(in, &turn, room);
		}
		if (!room) {		/* exactly the budget so far */
			spare = true;
			room = 64;
		}
		from = guarded(0, in_n);
		memcpy(from, in->data + pos, in_n);
		to = guarded(1, room);
		r->status = lt_tee_feed(t, from, in_n, to, room, &taken, &made);
		CHECK(taken <= in_n && made <= room);
		CHECK(!spare || !made);
		memcpy(out + r->out_nbytes, to, made);
		pos += taken;
		r->out_nbytes += made;
		if (r->status < 0)
			break;
		CHECK(taken || made || !in_n);
		if (pos == in->nbytes && made < room)
			break;
	}
	r->status = lt_tee_finish(t, &r->result);
	CHECK(r->status == r->result.status);
	CHECK(r->result.error_offset == lt_tee_error_offset(t));
	lt_tee_free(t);
}

/* The property: a split changes nothing, the output of a failed stream
 * included (but for its end, where a gzip body breaks off: lt_inflate_isal.c). */
static inline void decode_both_ways(struct outcome *r, const struct input *in,
				    int format, bool check_crc, u8 *out)
{
	static u8 other[OUT_BUDGET];
	struct outcome s;

	decode(r, in, format, check_crc, false, out);
	decode(&s, in, format, check_crc, true, other);
	CHECK(r->status == s.status);
	CHECK(r->result.error_offset == s.result.error_offset);
	CHECK(!memcmp(out, other, lt_min(r->out_nbytes, s.out_nbytes)));
	if (format == LT_FORMAT_GZIP && (r->status == LT_ERR_DATA ||
					 r->status == LT_ERR_TRUNCATED)) {
		CHECK(r->out_nbytes <= s.out_nbytes + 258);
		CHECK(s.out_nbytes <= r->out_nbytes + 258);
		s.out_nbytes = r->out_nbytes;
	}
	CHECK(!memcmp(r, &s, sizeof(s)));
}

#endif
