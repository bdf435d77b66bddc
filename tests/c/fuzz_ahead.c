/*
 * fuzz_ahead.c: a stream decoded by pieces before their turn against the same
 * stream decoded in turn.
 *
 * FLAG_GZIP_FILE: the input goes on where a gzip member stands at a flush marker
 * with a full window; else it is zstd frames.  The piece sizes say how much
 * input each piece gets.  Where a piece is of no use, the decoder goes on by
 * itself to the next place that a piece could begin at.  Status, error offset,
 * output, and counts must be those of one decoder in turn.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#include <zlib.h>

#include "codec/ahead/lt_ahead.h"
#include "fuzz_common.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes);

#define PREFIX_OUT_NBYTES ((size_t)40000)

/* What comes before the input: a member up to its first marker. */
static u8 prefix[2 * PREFIX_OUT_NBYTES];
static size_t prefix_nbytes;

struct said {
	int status;
	u64 error_offset, n_members;
	size_t in_nbytes, out_nbytes;
	u8 out[PREFIX_OUT_NBYTES + OUT_BUDGET_MAX + 1];
};

static struct said in_turn, by_pieces;

/* Feed 'nbytes' bytes; false: the stream is over. */
static bool feed_all(lt_codec *c, struct said *r, const u8 *in, size_t nbytes)
{
	size_t taken, made;

	do {
		r->status = lt_codec_step(c, in, nbytes, r->out + r->out_nbytes,
					  sizeof(r->out) - r->out_nbytes,
					  &taken, &made);
		in += taken;
		nbytes -= taken;
		r->in_nbytes += taken;
		r->out_nbytes += made;
		CHECK(r->out_nbytes < sizeof(r->out));
	} while (r->status == LT_OK && nbytes);
	return r->status == LT_OK;
}

/* Take what was decoded ahead, in rooms that follow the sizes. */
static void take_all(lt_codec *c, struct said *r, lt_ahead *a,
		     const struct input *in, size_t *turn)
{
	size_t made, room;

	do {
		room = lt_min(in->n_sizes ? out_room(in, turn, OUT_BUDGET_MAX) : 999,
			      sizeof(r->out) - r->out_nbytes);
		if (lt_codec_take(c, a, r->out + r->out_nbytes, room, &made)) {
			r->out_nbytes += made;
			break;
		}
		CHECK(made == room);
		r->out_nbytes += made;
	} while (true);
	r->in_nbytes += lt_ahead_in_nbytes(a);
}

static void decode_pieces(lt_codec *c, struct said *r, const struct input *in,
			  int format, size_t base)
{
	static lt_ahead *kept[2];	/* it keeps the memory of one format */
	lt_ahead **of_format = &kept[format == LT_FORMAT_GZIP], *a;
	size_t pos = 0, turn = 0;

	if (!*of_format)
		*of_format = lt_ahead_new();
	a = *of_format;
	CHECK(a);
	while (pos < in->nbytes) {
		const size_t left = in->nbytes - pos;
		const size_t n = in->n_sizes ? piece(in, &turn, left) : left;
		size_t at = 0;

		if (n && lt_ahead_decode(a, format, false, base + pos,
					 in->data + pos, n)) {
			CHECK(lt_ahead_in_nbytes(a) <= n);
			CHECK(lt_ahead_out_nbytes(a) <= LT_AHEAD_OUT_MAX);
			if (lt_codec_adopt(c, a)) {
				pos += lt_ahead_in_nbytes(a);
				take_all(c, r, a, in, &turn);
				continue;
			}
		}
		if (!lt_ahead_find(format, in->data + pos, left, 1, &at))
			at = left;
		CHECK(at > 0 && at <= left);
		if (!feed_all(c, r, in->data + pos, at))
			return;
		pos += at;
	}
}

static void say(struct said *r, const struct input *in, bool gzip, bool pieces)
{
	static lt_codec *c;
	const int format = gzip ? LT_FORMAT_GZIP : LT_FORMAT_ZSTD;
	const size_t base = gzip ? prefix_nbytes : 0;
	const u64 budget = in->out_budget + (gzip ? PREFIX_OUT_NBYTES : 0);

	if (!c)
		c = lt_codec_new();
	CHECK(c);
	CHECK(lt_codec_begin(c, format, false, true, budget, WINDOW_MAX) ==
	      LT_OK);
	r->in_nbytes = r->out_nbytes = 0;
	CHECK(feed_all(c, r, prefix, base));
	if (pieces)
		decode_pieces(c, r, in, format, base);
	else
		feed_all(c, r, in->data, in->nbytes);
	if (r->status == LT_OK)
		r->status = lt_codec_finish(c);
	r->error_offset = lt_codec_error_offset(c);
	r->n_members = lt_codec_n_members(c);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static u8 text[PREFIX_OUT_NBYTES];
	z_stream z = {0};
	u32 x = 1;

	(void)argc;
	(void)argv;
	for (size_t i = 0; i < sizeof(text); i++) {
		x = x * 1664525 + 1013904223;
		text[i] = i % 7 ? (u8)("layer tee"[x >> 29]) : (u8)(x >> 24);
	}
	CHECK(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, 0) == Z_OK);
	z.next_in = text;
	z.avail_in = sizeof(text);
	z.next_out = prefix;
	z.avail_out = sizeof(prefix);
	CHECK(deflate(&z, Z_SYNC_FLUSH) == Z_OK && !z.avail_in);
	prefix_nbytes = z.total_out;
	deflateEnd(&z);
	CHECK(lt_inflater_use("own") == LT_OK);
	return lt_kernel_use(NULL);
}

int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes)
{
	struct input in;
	bool gzip;

	if (!take_input(&in, p, nbytes))
		return 0;
	gzip = in.flags & FLAG_GZIP_FILE;
	say(&in_turn, &in, gzip, false);
	say(&by_pieces, &in, gzip, true);
	CHECK(in_turn.status == by_pieces.status);
	CHECK(in_turn.error_offset == by_pieces.error_offset);
	CHECK(in_turn.n_members == by_pieces.n_members);
	/* See decode_both_ways. */
	if (!gzip && in_turn.status == LT_ERR_DATA)
		in_turn.out_nbytes = by_pieces.out_nbytes =
			lt_min(in_turn.out_nbytes, by_pieces.out_nbytes);
	CHECK(in_turn.out_nbytes == by_pieces.out_nbytes);
	CHECK(!memcmp(in_turn.out, by_pieces.out, in_turn.out_nbytes));
	if (in_turn.status == LT_OK)
		CHECK(in_turn.in_nbytes == by_pieces.in_nbytes);
	return 0;
}
