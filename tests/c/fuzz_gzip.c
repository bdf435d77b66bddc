/*
 * fuzz_gzip.c: lt_gzip.c and the inflaters against zlib left to itself.
 *
 * FLAG_GZIP_FILE: the stream is a gzip file; accepted by us if and only if
 * zlib accepts all of its members and nothing follows them.  Half of the
 * mutants of such a file get the CRC and the length that their body now has:
 * else a CRC stops the fuzzer at the door.  Without the flag the stream is raw
 * deflate, decoded by lt_inflate.  FLAG_ZLIB, FLAG_ISAL, FLAG_PORTABLE: by that
 * inflater, the first under our rules; else by our own, as this CPU has it.
 * FLAG_NO_CRC: our CRC is not checked, so that more is accepted, but nothing
 * else comes out.
 *
 * FLAG_FREEZE, by our own, without FLAG_GZIP_FILE: between two pieces the stream
 * is frozen and goes on in another decoder; or, where there are no pieces, the
 * stream is what was frozen, with a checksum that is right.
 *
 * Differences that are meant: names above 64 KiB (ours refuses), more output
 * than the budget, and, with ISA-L, Huffman codes that leave bit patterns
 * unused, which zlib refuses and ISA-L does not.  Our own does as zlib does, and
 * what it makes of raw deflate is held to ISA-L, too.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#define ZLIB_CONST
#include <zlib.h>

#include "codec/inflate/lt_inflate.h"
#include "codec/lt_crc32.h"
#include "fuzz_common.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes);
size_t LLVMFuzzerMutate(u8 *p, size_t nbytes, size_t nbytes_max);
size_t LLVMFuzzerCustomMutator(u8 *p, size_t nbytes, size_t nbytes_max,
			       unsigned int seed);

static u8 ours[OUT_BUDGET_MAX], theirs[OUT_BUDGET_MAX];

/* zlib, about to inflate 'in' into theirs[]: raw deflate or a gzip member. */
static z_stream *zlib_ready(const u8 *in, size_t nbytes, size_t out_nbytes,
			    int window_bits)
{
	static z_stream s;

	if (!s.state)
		CHECK(inflateInit2(&s, window_bits) == Z_OK);
	else
		CHECK(inflateReset2(&s, window_bits) == Z_OK);
	s.next_in = in;
	s.avail_in = (uInt)nbytes;
	s.next_out = theirs + out_nbytes;
	return &s;
}

static bool unused_codes(const z_stream *s)
{
	return s->msg && (strstr(s->msg, "invalid code lengths set") ||
			  strstr(s->msg, "invalid literal/lengths set") ||
			  strstr(s->msg, "invalid distances set"));
}

enum which { OWN, PORTABLE, ISAL, ZLIB };

static const char *const names[] = {"own", "own-portable", "isal", "zlib"};

static enum which inflater_of(const struct input *in)
{
	return in->flags & FLAG_ZLIB ? ZLIB : in->flags & FLAG_ISAL ? ISAL :
	       in->flags & FLAG_PORTABLE ? PORTABLE : OWN;
}

static bool is_own(enum which w)
{
	return w == OWN || w == PORTABLE;
}

enum verdict { ACCEPT, REFUSE, UNKNOWN };

static enum verdict zlib_gzip(const struct input *in, size_t *out_nbytes)
{
	enum verdict v = ACCEPT;
	size_t pos = 0;

	*out_nbytes = 0;
	while (pos < in->nbytes && v == ACCEPT) {
		const u8 *member = in->data + pos;
		z_stream *s;
		int ret;

		/* zlib's inflate would take a zlib stream or nothing else. */
		if (in->nbytes - pos < 2 || member[0] != 0x1f ||
		    member[1] != 0x8b)
			return REFUSE;
		s = zlib_ready(member, in->nbytes - pos, *out_nbytes, 16 + 15);
		s->avail_out = (uInt)(in->out_budget - *out_nbytes);
		do {
			ret = inflate(s, Z_NO_FLUSH);
		} while (ret == Z_OK && (s->avail_in || !s->avail_out) &&
			 s->avail_out);
		if (ret != Z_STREAM_END)
			v = !s->avail_out || (in->flags & FLAG_ISAL &&
					       unused_codes(s)) ?
			    UNKNOWN : REFUSE;
		*out_nbytes = in->out_budget - s->avail_out;
		pos = in->nbytes - s->avail_in;
	}
	return v;
}

static void gzip_file(const struct input *in)
{
	const bool check_crc = !(in->flags & FLAG_NO_CRC);
	struct outcome r;
	size_t out_nbytes;
	enum verdict v = zlib_gzip(in, &out_nbytes);

	decode_both_ways(&r, in, LT_FORMAT_GZIP, check_crc, ours);
	CHECK(!memcmp(ours, theirs, lt_min(r.out_nbytes, out_nbytes)));
	if (v == UNKNOWN || r.status == LT_ERR_HEADER_TOO_LONG ||
	    r.status == LT_ERR_OUT_BUDGET)
		return;
	if (check_crc)
		CHECK((r.status == LT_OK) == (v == ACCEPT));
	if (v == ACCEPT) {
		CHECK(r.status == LT_OK);
		CHECK(r.out_nbytes == out_nbytes);
		CHECK(r.result.in_total == in->nbytes);
		CHECK(r.result.out_total == out_nbytes);
	}
}

static struct lt_inflate *decoder(enum which w)
{
	static struct lt_inflate *kept[4];

	CHECK(lt_inflater_use(names[w]) == LT_OK);
	kept[w] = lt_inflate_renew(kept[w]);
	CHECK(kept[w]);
	return kept[w];
}

/* What became of a raw stream; of its input, what is its own. */
struct raw {
	int status;
	size_t in_nbytes, out_nbytes;
};

/* Into ours[].  'frozen': it goes on in the other of our own after each step. */
static void decode_raw(struct raw *r, const struct input *in, enum which w,
		       bool split, bool frozen)
{
	struct lt_inflate *f = decoder(w);
	struct lt_cursor io = {0};
	u8 surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes = 0, turn = 0;

	memset(r, 0, sizeof(*r));
	lt_inflate_reset(f);
	while (r->status == LT_OK) {
		size_t in_n = in->nbytes - r->in_nbytes;
		size_t room = in->out_budget - r->out_nbytes;
		u8 *from, *to;

		if (split) {
			in_n = piece(in, &turn, in_n);
			room = out_room(in, &turn, room);
		}
		if (!room)		/* zlib had more of it, and so have we */
			return;
		from = guarded(0, in_n);
		to = guarded(1, room);
		memcpy(from, in->data + r->in_nbytes, in_n);
		io.in = from;
		io.in_nbytes = in_n;
		io.out = to;
		io.out_nbytes = room;
		r->status = lt_inflate_step(f, &io, surplus, &surplus_nbytes);
		memcpy(ours + r->out_nbytes, to, room - io.out_nbytes);
		r->in_nbytes += in_n - io.in_nbytes;
		r->out_nbytes += room - io.out_nbytes;
		if (r->status == LT_OK && r->in_nbytes == in->nbytes &&
		    io.out_nbytes)
			return;
		if (r->status == LT_OK && frozen) {
			static u8 p[LT_INFLATE_FROZEN_MAX];
			const size_t n = lt_inflate_freeze(f, p);

			w = w == OWN ? PORTABLE : OWN;
			f = decoder(w);
			CHECK(n && lt_inflate_thaw(f, p, n) == LT_OK);
		}
	}
	if (r->status == LT_INFLATE_END) {
		CHECK(!surplus_nbytes || w == ISAL);
		r->in_nbytes -= surplus_nbytes;
		CHECK(!memcmp(surplus, in->data + r->in_nbytes,
			      surplus_nbytes));
	}
}

static void raw_deflate(const struct input *in)
{
	const enum which w = inflater_of(in);
	z_stream *s = zlib_ready(in->data, in->nbytes, 0, -15);
	const size_t budget = in->out_budget;
	size_t theirs_nbytes;
	struct raw r;
	int ret;

	s->avail_out = (uInt)budget;
	do {
		ret = inflate(s, Z_NO_FLUSH);
	} while (ret == Z_OK && s->avail_in && s->avail_out);
	theirs_nbytes = budget - s->avail_out;
	if (!s->avail_out)
		return;

	if (w != ISAL) {
		decode_raw(&r, in, w, in->n_sizes,
			   is_own(w) && in->flags & FLAG_FREEZE);
		CHECK(r.out_nbytes == theirs_nbytes);
		CHECK(!memcmp(ours, theirs, theirs_nbytes));
		CHECK(r.status == (ret == Z_STREAM_END ? LT_INFLATE_END :
				   ret == Z_DATA_ERROR ? LT_ERR_DATA : LT_OK));
		CHECK(ret != Z_STREAM_END ||
		      r.in_nbytes == in->nbytes - s->avail_in);
	}
	if (w == ZLIB || unused_codes(s))
		return;
	decode_raw(&r, in, ISAL, w == ISAL && in->n_sizes, false);
	CHECK(!memcmp(ours, theirs, lt_min(r.out_nbytes, theirs_nbytes)));
	/* lt_inflate_isal.c says what may be missing before an error. */
	CHECK(r.out_nbytes == theirs_nbytes ||
	      (ret != Z_STREAM_END && r.out_nbytes < theirs_nbytes &&
	       r.out_nbytes + 258 >= theirs_nbytes));
	switch (ret) {
	case Z_STREAM_END:
		CHECK(r.status == LT_INFLATE_END);
		CHECK(r.in_nbytes == in->nbytes - s->avail_in);
		break;
	case Z_DATA_ERROR:
		CHECK(r.status == LT_ERR_DATA);
		break;
	default:
		/* ISA-L knows sooner that a block without codes is hopeless. */
		CHECK(r.status == LT_OK || r.status == LT_ERR_DATA);
	}
}

/* What it says may be anything, and is then decoded, with itself as input. */
static void thaw(const struct input *in)
{
	enum { MAGIC = 4, NBYTES_AT = 371, LEAST = 379 };
	struct lt_inflate *f = decoder(inflater_of(in));
	u8 *const p = guarded(0, lt_min(in->nbytes, LEAST + 32768));
	const size_t nbytes = lt_min(in->nbytes, LEAST + 32768);
	u8 surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes, left = in->out_budget;
	struct lt_cursor io = {.in = p, .in_nbytes = nbytes};
	u32 crc;

	if (in->nbytes < LEAST)
		return;
	memcpy(p, in->data, nbytes);
	memcpy(p, "lti1", MAGIC);
	for (u32 i = 0; i < 4; i++)
		p[NBYTES_AT + i] = (u8)((nbytes - LEAST) >> 8 * i);
	crc = lt_crc32(0, p, nbytes - 4);
	for (u32 i = 0; i < 4; i++)
		p[nbytes - 4 + i] = (u8)(crc >> 8 * i);
	if (lt_inflate_thaw(f, p, nbytes) != LT_OK)
		return;
	while (left) {
		const size_t room = lt_min(left, 1 + (left * 7) % 5000);

		io.out = guarded(1, room);
		io.out_nbytes = room;
		if (lt_inflate_step(f, &io, surplus, &surplus_nbytes) != LT_OK ||
		    io.out_nbytes)
			return;
		left -= room;
	}
}

/* Make the trailer of the first member right, if its header is a plain one. */
static void repair(const struct input *in)
{
	enum { HEADER = 10, TRAILER = 8 };
	z_stream *s;
	u8 *p;
	int ret;

	if (in->nbytes < HEADER || in->data[3] != 0)
		return;
	s = zlib_ready(in->data + HEADER, in->nbytes - HEADER, 0, -15);
	s->avail_out = (uInt)in->out_budget;
	do {
		ret = inflate(s, Z_NO_FLUSH);
	} while (ret == Z_OK && s->avail_in && s->avail_out);
	if (ret != Z_STREAM_END || s->avail_in < TRAILER)
		return;
	p = (u8 *)(uintptr_t)s->next_in;
	for (size_t i = 0, n = in->out_budget - s->avail_out,
		    crc = crc32(0, theirs, (uInt)n); i < 4; i++) {
		p[i] = (u8)(crc >> 8 * i);
		p[4 + i] = (u8)(n >> 8 * i);
	}
}

size_t LLVMFuzzerCustomMutator(u8 *p, size_t nbytes, size_t nbytes_max,
			       unsigned int seed)
{
	struct input in;

	nbytes = LLVMFuzzerMutate(p, nbytes, nbytes_max);
	if (seed & 1 && take_input(&in, p, nbytes) && in.flags & FLAG_GZIP_FILE)
		repair(&in);
	return nbytes;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return lt_kernel_use(NULL);
}

int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes)
{
	struct input in;

	if (!take_input(&in, p, nbytes))
		return 0;
	CHECK(lt_inflater_use(names[inflater_of(&in)]) == LT_OK);
	if (in.flags & FLAG_GZIP_FILE)
		gzip_file(&in);
	else if (in.flags & FLAG_FREEZE && is_own(inflater_of(&in)) &&
		 !in.n_sizes)
		thaw(&in);
	else
		raw_deflate(&in);
	return 0;
}
