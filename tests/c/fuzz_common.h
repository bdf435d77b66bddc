/*
 * fuzz_common.h: what both fuzz targets do: decode under a split that the
 * fuzzer chooses.
 *
 * The first byte of an input is flags (below), the second says how many of the
 * bytes after it are piece sizes (used in turn), the rest is the stream.
 *
 * An execution shall cost tens of microseconds, as the number of executions is
 * what finds things.  So decoders are kept from one to the next, as the pool
 * keeps its own (a context for each was half of the time); output is small
 * unless a flag asks for much; and pieces grow, so that a split costs some
 * hundred calls and not one for each byte of a megabyte.
 *
 * Input pieces and output rooms end at pages that cannot be touched: libisal
 * is assembly, which no sanitizer sees into.
 */
#ifndef FUZZ_COMMON_H
#define FUZZ_COMMON_H

#include <stdio.h>
#include <sys/mman.h>

#include "codec/lt_codec.h"
#include "lt_api_c.h"
#include "lt_common.h"

#define OUT_BUDGET_MAX ((size_t)256 << 10)
#define OUT_BUDGET_SMALL ((size_t)8 << 10)
#define WINDOW_MAX ((u64)1 << 20)

enum {
	FLAG_GZIP_FILE = 1,		/* fuzz_gzip.c alone */
	FLAG_ZLIB = 2,			/* same */
	FLAG_MUCH = 4,			/* OUT_BUDGET_MAX of output */
	FLAG_TEE = 8,			/* by new decoders, with digests */
	FLAG_NO_CRC = 16,		/* checksums in the stream are passed over */
	FLAG_ISAL = 32,			/* fuzz_gzip.c alone */
	FLAG_PORTABLE = 64,		/* same */
	FLAG_FREEZE = 128,		/* same */
};

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
	size_t out_budget;
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
	in->out_budget = in->flags & FLAG_MUCH ? OUT_BUDGET_MAX
					       : OUT_BUDGET_SMALL;
	return true;
}

/* 'nbytes' bytes that end where the accessible memory ends. */
static inline u8 *guarded(size_t which, size_t nbytes)
{
	static u8 *ends[2];

	CHECK(which < 2 && nbytes <= OUT_BUDGET_MAX);
	if (!ends[which]) {
		u8 *p = mmap(NULL, OUT_BUDGET_MAX + 4096,
			     PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(p != MAP_FAILED);
		CHECK(!mprotect(p + OUT_BUDGET_MAX, 4096, PROT_NONE));
		ends[which] = p + OUT_BUDGET_MAX;
	}
	return ends[which] - nbytes;
}

/* Twice as much with every 64 turns. */
static inline size_t grown(size_t nbytes, size_t turn)
{
	return nbytes << lt_min(turn / 64, 16);
}

/* The next piece of input: any size, but not for ever none. */
static inline size_t piece(const struct input *in, size_t *turn, size_t left)
{
	size_t n = in->sizes[*turn % in->n_sizes];

	if (++*turn % 7 == 0)
		n++;
	return lt_min(grown(n, *turn), left);
}

/* The room for output that goes with it. */
static inline size_t out_room(const struct input *in, size_t *turn, size_t left)
{
	size_t n = (size_t)64 * in->sizes[++*turn % in->n_sizes] + 1;

	return lt_min(grown(n, *turn), left);
}

/* A decoder of either kind. */
struct subject {
	lt_tee *tee;
	lt_codec *codec;
};

static inline struct subject subject_new(const struct input *in, int format,
					 bool check_crc)
{
	static lt_codec *codecs[8];	/* one for each inflater */
	lt_codec **kept = &codecs[(in->flags & (FLAG_ISAL | FLAG_PORTABLE)) / 16 |
				  !!(in->flags & FLAG_ZLIB)];
	struct subject s = {0};

	if (in->flags & FLAG_TEE) {
		s.tee = lt_tee_new(format, check_crc, in->out_budget,
				   WINDOW_MAX);
		CHECK(s.tee);
		return s;
	}
	if (!*kept)
		*kept = lt_codec_new();
	CHECK(*kept);
	CHECK(lt_codec_begin(*kept, format, check_crc, true, in->out_budget,
			     WINDOW_MAX) == LT_OK);
	s.codec = *kept;
	return s;
}

static inline int feed(struct subject *s, const u8 *in, size_t in_nbytes,
		       u8 *out, size_t room, size_t *taken, size_t *made)
{
	return s->tee ? lt_tee_feed(s->tee, in, in_nbytes, out, room, taken,
				    made)
		      : lt_codec_step(s->codec, in, in_nbytes, out, room,
				      taken, made);
}

/* A kept codec fills in what a tee would have counted and hashed, but for the
 * digests. */
static inline int finish(struct subject *s, size_t taken, size_t made,
			 struct lt_result *ret)
{
	int status;

	if (s->tee) {
		status = lt_tee_finish(s->tee, ret);
		CHECK(ret->error_offset == lt_tee_error_offset(s->tee));
		lt_tee_free(s->tee);
		return status;
	}
	status = lt_codec_finish(s->codec);
	ret->status = status;
	ret->error_offset = lt_codec_error_offset(s->codec);
	ret->window = lt_codec_error_window(s->codec);
	if (status == LT_OK) {
		ret->in_total = taken;
		ret->out_total = made;
		ret->n_members = lt_codec_n_members(s->codec);
		ret->format = lt_codec_format(s->codec);
	}
	return status;
}

struct outcome {
	int status;
	struct lt_result result;
	size_t out_nbytes;
};

/* Decode into 'out', OUT_BUDGET_MAX bytes.  With 'split', pieces of input and
 * of output room follow the sizes; else all at once. */
static inline void decode(struct outcome *r, const struct input *in,
			  int format, bool check_crc, bool split, u8 *out)
{
	struct subject s = subject_new(in, format, check_crc);
	size_t pos = 0, turn = 0;

	memset(r, 0, sizeof(*r));
	for (;;) {
		size_t in_n = in->nbytes - pos;
		size_t room = in->out_budget - r->out_nbytes;
		size_t taken, made;
		bool spare = false;
		u8 *from, *to;

		if (split) {
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
		r->status = feed(&s, from, in_n, to, room, &taken, &made);
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
	r->status = finish(&s, pos, r->out_nbytes, &r->result);
	CHECK(r->status <= 0 && r->status == r->result.status);
}

static inline bool breaks_off(const struct outcome *r)
{
	return r->status == LT_ERR_DATA || r->status == LT_ERR_TRUNCATED;
}

/* One was at the budget before it came to where the body breaks off, for the
 * other it broke off within the bytes that may be missing then. */
static inline bool at_both_ends(const struct outcome *budget,
				const struct outcome *broken)
{
	return budget->status == LT_ERR_OUT_BUDGET && breaks_off(broken) &&
	       broken->out_nbytes + 258 >= budget->out_nbytes;
}

/* The property: a split changes nothing, the output of a failed stream
 * included; but, by ISA-L alone, for its end, where a gzip body breaks off:
 * lt_inflate_isal.c. */
static inline void decode_both_ways(struct outcome *r, const struct input *in,
				    int format, bool check_crc, u8 *out)
{
	static u8 other[OUT_BUDGET_MAX];
	struct outcome s;

	decode(r, in, format, check_crc, false, out);
	if (!in->n_sizes)
		return;
	decode(&s, in, format, check_crc, true, other);
	CHECK(!memcmp(out, other, lt_min(r->out_nbytes, s.out_nbytes)));
	if (in->flags & FLAG_ISAL &&
	    (at_both_ends(r, &s) || at_both_ends(&s, r)))
		return;
	/* Where more comes out of a zstd block than it may have, it depends on
	 * the buffer that earlier frames have left whether libzstd gives some
	 * of it away before. */
	if (format == LT_FORMAT_ZSTD && r->status == LT_ERR_DATA &&
	    s.status == LT_ERR_DATA)
		r->out_nbytes = s.out_nbytes;
	CHECK(r->status == s.status);
	CHECK(r->result.error_offset == s.result.error_offset);
	if (in->flags & FLAG_ISAL && breaks_off(r)) {
		CHECK(r->out_nbytes <= s.out_nbytes + 258);
		CHECK(s.out_nbytes <= r->out_nbytes + 258);
		s.out_nbytes = r->out_nbytes;
	}
	CHECK(!memcmp(r, &s, sizeof(s)));
}

#endif
