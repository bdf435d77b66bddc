/*
 * fuzz_gzip.c: lt_gzip.c and the inflaters against zlib left to itself.
 *
 * flags & 1: the stream is a gzip file; accepted by us if and only if zlib
 * accepts all of its members and nothing follows them.  Else it is raw deflate
 * (a CRC stops a fuzzer at the door), decoded by lt_inflate.  flags & 2: by
 * the slower of the inflaters, which is zlib under our rules.
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

int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes);

static u8 ours[OUT_BUDGET], theirs[OUT_BUDGET];

static bool unused_codes(const z_stream *s)
{
	return s->msg && (strstr(s->msg, "invalid code lengths set") ||
			  strstr(s->msg, "invalid literal/lengths set") ||
			  strstr(s->msg, "invalid distances set"));
}

enum verdict { ACCEPT, REFUSE, UNKNOWN };

static enum verdict zlib_gzip(const struct input *in, size_t *out_nbytes)
{
	z_stream s = {.next_in = in->data, .avail_in = (uInt)in->nbytes,
		      .next_out = theirs, .avail_out = OUT_BUDGET};
	enum verdict v = ACCEPT;

	while (s.avail_in && v == ACCEPT) {
		int ret;

		/* zlib's inflate would take a zlib stream or nothing else. */
		if (s.avail_in < 2 || s.next_in[0] != 0x1f ||
		    s.next_in[1] != 0x8b) {
			v = REFUSE;
			break;
		}
		CHECK(inflateInit2(&s, 16 + 15) == Z_OK);
		do {
			ret = inflate(&s, Z_NO_FLUSH);
		} while (ret == Z_OK && (s.avail_in || !s.avail_out) &&
			 s.avail_out);
		if (ret != Z_STREAM_END) {
			v = REFUSE;
			if (!s.avail_out || unused_codes(&s))
				v = UNKNOWN;
		}
		inflateEnd(&s);
	}
	*out_nbytes = OUT_BUDGET - s.avail_out;
	return v;
}

static void gzip_file(const struct input *in)
{
	struct outcome r;
	size_t out_nbytes;
	enum verdict v = zlib_gzip(in, &out_nbytes);

	decode_both_ways(&r, in, LT_FORMAT_GZIP, true, ours);
	if (v == UNKNOWN || r.status == LT_ERR_HEADER_TOO_LONG ||
	    r.status == LT_ERR_OUT_BUDGET)
		return;
	CHECK((r.status == LT_OK) == (v == ACCEPT));
	if (v == ACCEPT) {
		CHECK(r.out_nbytes == out_nbytes);
		CHECK(!memcmp(ours, theirs, out_nbytes));
		CHECK(r.result.in_total == in->nbytes);
		CHECK(r.result.out_total == out_nbytes);
	}
	/* Without the CRC more is accepted, never something else. */
	decode_both_ways(&r, in, LT_FORMAT_GZIP, false, ours);
	CHECK(v != ACCEPT || r.status == LT_OK);
}

static void raw_deflate(const struct input *in)
{
	static struct lt_inflate *f;
	z_stream s = {.next_in = in->data, .avail_in = (uInt)in->nbytes,
		      .next_out = theirs, .avail_out = OUT_BUDGET};
	struct lt_cursor io = {0};
	u8 surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes = 0, theirs_nbytes, turn = 0, pos = 0;
	size_t made = 0;
	int ret = LT_OK, theirs_ret;
	bool unused;

	CHECK(inflateInit2(&s, -15) == Z_OK);
	do {
		theirs_ret = inflate(&s, Z_NO_FLUSH);
	} while (theirs_ret == Z_OK && s.avail_in && s.avail_out);
	unused = unused_codes(&s);
	inflateEnd(&s);
	theirs_nbytes = OUT_BUDGET - s.avail_out;
	if (!s.avail_out || unused)
		return;

	f = lt_inflate_renew(f);
	CHECK(f);
	lt_inflate_reset(f);
	while (ret == LT_OK) {
		size_t in_n = in->nbytes - pos;
		size_t room = OUT_BUDGET - made;
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
		ret = lt_inflate_step(f, &io, surplus, &surplus_nbytes);
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
		CHECK(pos == in->nbytes - s.avail_in);
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

int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes)
{
	struct input in;

	lt_kernel_use(NULL);
	if (!take_input(&in, p, nbytes))
		return 0;
	CHECK(lt_inflater_use(in.flags & 2 ? "zlib" : NULL) == LT_OK);
	if (in.flags & 1)
		gzip_file(&in);
	else
		raw_deflate(&in);
	return 0;
}
