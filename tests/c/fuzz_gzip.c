/*
 * fuzz_gzip.c: lt_gzip.c and the inflaters against zlib left to itself.
 *
 * FLAG_GZIP_FILE: the stream is a gzip file; accepted by us if and only if
 * zlib accepts all of its members and nothing follows them.  Half of the
 * mutants of such a file get the CRC and the length that their body now has:
 * else a CRC stops the fuzzer at the door.  Without the flag the stream is raw
 * deflate, decoded by lt_inflate.  FLAG_SLOWER: by the slower of the inflaters,
 * which is zlib under our rules.  FLAG_NO_CRC: our CRC is not checked, so that
 * more is accepted, but nothing else comes out.
 *
 * Differences that are meant: names above 64 KiB (ours refuses), more output
 * than the budget, and Huffman codes that leave bit patterns unused, which
 * zlib refuses and ISA-L does not.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#define ZLIB_CONST
#include <zlib.h>

#include "codec/inflate/lt_inflate.h"
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
			v = !s->avail_out || unused_codes(s) ? UNKNOWN : REFUSE;
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

static void raw_deflate(const struct input *in)
{
	static struct lt_inflate *kept[2];
	struct lt_inflate **f = &kept[!!(in->flags & FLAG_SLOWER)];
	z_stream *s = zlib_ready(in->data, in->nbytes, 0, -15);
	struct lt_cursor io = {0};
	u8 surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes = 0, theirs_nbytes, turn = 0, pos = 0;
	size_t made = 0;
	int ret = LT_OK, theirs_ret;

	s->avail_out = (uInt)in->out_budget;
	do {
		theirs_ret = inflate(s, Z_NO_FLUSH);
	} while (theirs_ret == Z_OK && s->avail_in && s->avail_out);
	theirs_nbytes = in->out_budget - s->avail_out;
	if (!s->avail_out || unused_codes(s))
		return;

	*f = lt_inflate_renew(*f);
	CHECK(*f);
	lt_inflate_reset(*f);
	while (ret == LT_OK) {
		size_t in_n = in->nbytes - pos;
		size_t room = in->out_budget - made;
		u8 *from, *to;

		if (in->n_sizes) {
			in_n = piece(in, &turn, in_n);
			room = out_room(in, &turn, room);
		}
		CHECK(room);
		from = guarded(0, in_n);
		to = guarded(1, room);
		memcpy(from, in->data + pos, in_n);
		io.in = from;
		io.in_nbytes = in_n;
		io.out = to;
		io.out_nbytes = room;
		ret = lt_inflate_step(*f, &io, surplus, &surplus_nbytes);
		memcpy(ours + made, to, room - io.out_nbytes);
		pos += in_n - io.in_nbytes;
		made += room - io.out_nbytes;
		if (ret == LT_OK && pos == in->nbytes && io.out_nbytes)
			break;
	}
	CHECK(!memcmp(ours, theirs, made));
	/* lt_inflate_isal.c says what may be missing before an error. */
	CHECK(made == theirs_nbytes ||
	      (theirs_ret != Z_STREAM_END && made < theirs_nbytes &&
	       made + 258 >= theirs_nbytes));
	switch (theirs_ret) {
	case Z_STREAM_END:
		CHECK(ret == LT_INFLATE_END);
		pos -= surplus_nbytes;
		CHECK(pos == in->nbytes - s->avail_in);
		CHECK(!memcmp(surplus, in->data + pos, surplus_nbytes));
		break;
	case Z_DATA_ERROR:
		CHECK(ret == LT_ERR_DATA);
		break;
	default:
		/* ISA-L knows sooner that a block without codes is hopeless. */
		CHECK(ret == LT_OK || ret == LT_ERR_DATA);
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
	CHECK(lt_inflater_use(in.flags & FLAG_SLOWER ? "zlib" : "isal") ==
	      LT_OK);
	if (in.flags & FLAG_GZIP_FILE)
		gzip_file(&in);
	else
		raw_deflate(&in);
	return 0;
}
