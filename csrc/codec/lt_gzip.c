/*
 * lt_gzip.c: gzip files (RFC 1952), all members, strictly.
 *
 * A state machine over header, body and trailer; only bodies go to an
 * inflater.  It accepts what Go's decoder accepts, because every image in use
 * has passed through that one:
 *
 *  - members follow each other, without limit (eStargz has thousands);
 *  - reserved FLG bits, a wrong FHCRC, CRC-32 or ISIZE are errors;
 *  - after a member, anything that does not begin a member is an error, zeros
 *    included.  "1f 8b" commits to a member: then the end is a truncation;
 *  - FNAME and FCOMMENT may have 64 KiB (Go: 512 bytes) and FEXTRA what its
 *    16-bit length allows; none of them is kept.
 *
 * A single byte of a member may arrive per call, so nothing is peeked at.
 */
#include "codec/inflate/lt_inflate.h"
#include "codec/lt_crc32.h"
#include "codec/lt_field.h"
#include "codec/lt_format.h"
#include "codec/lt_gzip.h"

#define NAME_NBYTES_MAX ((u32)64 << 10)

enum {					/* RFC 1952 §2.3.1 */
	FHCRC = 0x02,
	FEXTRA = 0x04,
	FNAME = 0x08,
	FCOMMENT = 0x10,
	FRESERVED = 0xe0,
	FIXED_NBYTES = 10,
	TRAILER_NBYTES = 8,
};

enum state {
	BETWEEN,			/* no member open: the input may end */
	FIXED,				/* the ten bytes every header has */
	EXTRA_LENGTH,
	EXTRA,
	NAME,
	COMMENT,
	HEADER_CRC,
	BODY,
	TRAILER,
};

struct gzip {
	struct lt_decoder base;
	struct lt_inflate *inflate;
	enum state state;
	bool check_crc;
	u8 flags;
	u32 header_crc;
	u32 crc;
	u64 member_out_nbytes;
	u32 left;			/* of FEXTRA; or of a name, so far */
	struct lt_field field;
};

/* The trailer takes what the inflater read too much, with nothing left over. */
_Static_assert(LT_INFLATE_SURPLUS_MAX <= TRAILER_NBYTES, "see BODY");

static struct lt_decoder *gzip_new(void)
{
	struct gzip *g = calloc(1, sizeof(*g));

	return g ? &g->base : NULL;
}

static void gzip_free(struct lt_decoder *d)
{
	struct gzip *g = (struct gzip *)d;

	lt_inflate_free(g->inflate);
	free(g);
}

static int gzip_reset(struct lt_decoder *d, const struct lt_format_options *o)
{
	struct gzip *g = (struct gzip *)d;
	struct lt_inflate *inflate = lt_inflate_renew(g->inflate);

	memset(g, 0, sizeof(*g));
	g->inflate = inflate;
	g->check_crc = o->check_crc;
	return inflate ? LT_OK : LT_ERR_MEMORY;
}

static u32 le16(const u8 *p)
{
	return (u32)p[0] | (u32)p[1] << 8;
}

static void header_bytes(struct gzip *g, const u8 *p, size_t nbytes)
{
	if (g->flags & FHCRC)
		g->header_crc = lt_crc32(g->header_crc, p, nbytes);
}

/* Judge each byte as it comes: a verdict may not wait for ten of them. */
static int fixed_byte(struct gzip *g, u8 byte)
{
	switch (g->field.fill) {
	case 1:				/* ID2 */
		if (byte != 0x8b)
			return lt_decoder_no_beginning(&g->base);
		break;
	case 2:				/* CM: 8 is deflate, the only one */
		if (byte != 8)
			return LT_ERR_HEADER;
		break;
	case 3:				/* FLG */
		if (byte & FRESERVED)
			return LT_ERR_HEADER;
		g->flags = byte;
		break;
	default:			/* MTIME, XFL, OS say nothing to us */
		break;
	}
	g->field.bytes[g->field.fill++] = byte;
	return LT_OK;
}

/* Skip a zero-terminated string; 1 when its end was seen. */
static int skip_name(struct gzip *g, struct lt_cursor *io)
{
	const u8 *end = memchr(io->in, 0, io->in_nbytes);
	size_t n = end ? (size_t)(end - io->in) : io->in_nbytes;

	if (n > NAME_NBYTES_MAX - g->left)
		return LT_ERR_HEADER_TOO_LONG;
	g->left += (u32)n;
	if (end)
		n++;
	header_bytes(g, io->in, n);
	lt_cursor_skip(io, n);
	return end ? 1 : 0;
}

/* The next field that the flags announce after 'done'. */
static void next_field(struct gzip *g, enum state done)
{
	g->field.fill = 0;
	g->left = 0;
	if (done < EXTRA_LENGTH && (g->flags & FEXTRA)) {
		g->state = EXTRA_LENGTH;
	} else if (done < NAME && (g->flags & FNAME)) {
		g->state = NAME;
	} else if (done < COMMENT && (g->flags & FCOMMENT)) {
		g->state = COMMENT;
	} else if (done < HEADER_CRC && (g->flags & FHCRC)) {
		g->state = HEADER_CRC;
	} else {
		g->state = BODY;
		g->crc = 0;
		g->member_out_nbytes = 0;
		lt_inflate_reset(g->inflate);
	}
}

struct lt_inflate *lt_gzip_body(const struct lt_decoder *d)
{
	const struct gzip *g = (const struct gzip *)d;

	return g->state == BODY ? g->inflate : NULL;
}

void lt_gzip_made(struct lt_decoder *d, const u8 *out, size_t nbytes)
{
	struct gzip *g = (struct gzip *)d;

	if (g->check_crc)
		g->crc = lt_crc32(g->crc, out, nbytes);
	g->member_out_nbytes += nbytes;
	if (nbytes)
		d->out_pos = d->part_pos;
}

static int body(struct gzip *g, struct lt_cursor *io)
{
	const u8 *out = io->out;
	size_t surplus_nbytes;
	int ret;

	/* At most 8 surplus bytes, and the trailer has 8: all are its own. */
	ret = lt_inflate_step(g->inflate, io, g->field.bytes, &surplus_nbytes);
	lt_gzip_made(&g->base, out, (size_t)(io->out - out));
	if (ret == LT_INFLATE_END) {
		g->state = TRAILER;
		g->field.fill = surplus_nbytes;
	}
	return ret < 0 ? ret : LT_OK;
}

static int trailer(struct gzip *g)
{
	if (g->check_crc && lt_le32(g->field.bytes) != g->crc)
		return LT_ERR_CHECKSUM;
	if (lt_le32(g->field.bytes + 4) != (u32)g->member_out_nbytes)
		return LT_ERR_LENGTH;
	g->base.n_members++;
	g->state = BETWEEN;
	return LT_OK;
}

/* One state's worth of work.  It either changes the state, or uses up the
 * input or the output room, or returns a verdict. */
static int advance(struct gzip *g, struct lt_cursor *io)
{
	size_t n;
	int ret;

	switch (g->state) {
	case BETWEEN:
		g->base.part_pos = io->in_pos;
		if (io->in[0] != 0x1f)
			return lt_decoder_no_beginning(&g->base);
		g->field.bytes[0] = 0x1f;
		g->field.fill = 1;
		g->state = FIXED;
		lt_cursor_skip(io, 1);
		return LT_OK;
	case FIXED:
		ret = fixed_byte(g, io->in[0]);
		if (ret != LT_OK)
			return ret;
		lt_cursor_skip(io, 1);
		if (g->field.fill == FIXED_NBYTES) {
			g->header_crc = 0;
			header_bytes(g, g->field.bytes, FIXED_NBYTES);
			next_field(g, FIXED);
		}
		return LT_OK;
	case EXTRA_LENGTH:
		if (lt_field_collect(&g->field, io, 2)) {
			header_bytes(g, g->field.bytes, 2);
			g->left = le16(g->field.bytes);
			g->state = EXTRA;
		}
		return LT_OK;
	case EXTRA:
		n = lt_min(g->left, io->in_nbytes);
		header_bytes(g, io->in, n);
		lt_cursor_skip(io, n);
		g->left -= (u32)n;
		if (!g->left)
			next_field(g, EXTRA);
		return LT_OK;
	case NAME:
	case COMMENT:
		ret = skip_name(g, io);
		if (ret > 0)
			next_field(g, g->state);
		return ret < 0 ? ret : LT_OK;
	case HEADER_CRC:
		if (!lt_field_collect(&g->field, io, 2))
			return LT_OK;
		if (le16(g->field.bytes) != (g->header_crc & 0xffff))
			return LT_ERR_CHECKSUM;
		next_field(g, HEADER_CRC);
		return LT_OK;
	case BODY:
		return body(g, io);
	case TRAILER:
		return lt_field_collect(&g->field, io, TRAILER_NBYTES) ?
		       trailer(g) : LT_OK;
	}
	return LT_ERR_MISUSE;
}

static int gzip_step(struct lt_decoder *d, struct lt_cursor *io)
{
	struct gzip *g = (struct gzip *)d;

	for (;;) {
		const enum state state = g->state;
		const size_t in_nbytes = io->in_nbytes;
		const size_t out_nbytes = io->out_nbytes;
		int ret;

		/* These two may go on without input: output may be pending,
		 * and the surplus may be a whole trailer. */
		if (!in_nbytes && state != BODY && state != TRAILER &&
		    !(state == EXTRA && !g->left))
			return LT_OK;
		if (!out_nbytes && state == BODY)
			return LT_OK;
		ret = advance(g, io);
		if (ret != LT_OK)
			return lt_decoder_fail(d, ret);
		if (state == g->state && in_nbytes == io->in_nbytes &&
		    out_nbytes == io->out_nbytes) {
			/* An inflater that stands still with room on both
			 * sides would make its caller spin. */
			return in_nbytes && state == BODY ?
			       lt_decoder_fail(d, LT_ERR_DATA) : LT_OK;
		}
	}
}

static int gzip_finish(struct lt_decoder *d, u64 in_total)
{
	const struct gzip *g = (const struct gzip *)d;

	if (g->state == BETWEEN)
		return LT_OK;
	/* One byte 1f begins a member only if a member is due. */
	if (g->state == FIXED && g->field.fill == 1 && d->n_members)
		return lt_decoder_fail(d, LT_ERR_TRAILING);
	d->error_pos = in_total;
	return LT_ERR_TRUNCATED;
}

const struct lt_format_ops lt_format_gzip = {
	.new = gzip_new,
	.free = gzip_free,
	.reset = gzip_reset,
	.step = gzip_step,
	.finish = gzip_finish,
	.grant_window = lt_decoder_no_window,
	.trim = lt_decoder_no_window,
	.ahead = &lt_ahead_deflate,
};
