/*
 * lt_zstd.c: zstd files (RFC 8878), all frames, strictly.
 *
 * We walk the frame ourselves, down to the headers of the blocks, and hand
 * libzstd one piece at a time (lt_unzstd.h).  What that buys:
 *
 *  - the window, the dictionary and the reserved bit are judged before libzstd
 *    allocates anything (a 9-byte frame can ask for 2 GiB);
 *  - skippable frames (zstd:chunked keeps its TOC there) are skipped, not
 *    parsed, in no memory; a frame or a skip that the input cuts short is
 *    noticed (to libzstd it is "more input, please");
 *  - a verdict is about a block, whatever the cuts, and a wrong content size is
 *    told from corrupt data.
 */
#include "codec/lt_codec.h"
#include "codec/lt_field.h"
#include "codec/lt_format.h"
#include "codec/lt_unzstd.h"
#include "codec/lt_zstd.h"

enum { MAGIC_NBYTES = 4 };

enum { RAW = 0, RLE = 1 };		/* Block_Type */

static const u8 frame_magic[MAGIC_NBYTES] = {0x28, 0xb5, 0x2f, 0xfd};
/* The low half of its first byte may be anything: 16 magics. */
static const u8 skip_magic[MAGIC_NBYTES] = {0x50, 0x2a, 0x4d, 0x18};

enum state {
	BETWEEN,			/* no frame open: the input may end */
	MAGIC,
	SKIP_LENGTH,
	SKIP,
	DESCRIPTOR,
	HEADER,
	WINDOW,				/* may have to wait for leave */
	BLOCK_HEADER,
	BLOCK,
	FLUSH,				/* all of the block was read */
	CHECKSUM,
};

struct zstd {
	struct lt_decoder base;
	struct lt_unzstd body;
	enum state state;
	bool check_crc;
	bool grant_all;
	bool has_checksum;
	bool has_size;
	bool last_block;
	u64 window_max;
	u64 content_size;
	u64 frame_out_nbytes;
	u64 block_from;			/* frame_out_nbytes when it began */
	u32 left;			/* of the block, or of the skip */
	size_t header_nbytes;
	struct lt_field field;
};

_Static_assert(LT_ZSTD_HEADER_NBYTES_MAX <= LT_FIELD_NBYTES_MAX, "see HEADER");

static struct lt_decoder *zstd_new(void)
{
	struct zstd *z = calloc(1, sizeof(*z));

	return z ? &z->base : NULL;
}

static void zstd_free(struct lt_decoder *d)
{
	struct zstd *z = (struct zstd *)d;

	lt_unzstd_free(&z->body);
	free(z);
}

static int zstd_reset(struct lt_decoder *d, const struct lt_format_options *o)
{
	struct zstd *z = (struct zstd *)d;
	const struct lt_unzstd body = z->body;

	memset(z, 0, sizeof(*z));
	z->body = body;
	z->check_crc = o->check_crc;
	z->grant_all = o->grant_all;
	z->window_max = o->window_max;
	return lt_unzstd_reset(&z->body, o->window_max);
}

static void zstd_grant_window(struct lt_decoder *d)
{
	((struct zstd *)d)->grant_all = true;
}

static void zstd_trim(struct lt_decoder *d)
{
	lt_unzstd_trim(&((struct zstd *)d)->body);
}

/* RFC 8878 §3.1.1.1.1: how long the header is follows from its first byte. */
static int descriptor(struct zstd *z, u8 fhd)
{
	static const u8 id_nbytes[4] = {0, 1, 2, 4};
	static const u8 size_nbytes[4] = {0, 2, 4, 8};
	const bool single_segment = fhd & 0x20;

	if (fhd & 0x08)			/* reserved */
		return LT_ERR_HEADER;
	z->has_checksum = fhd & 0x04;
	z->has_size = single_segment || fhd >> 6;
	z->header_nbytes = (size_t)MAGIC_NBYTES + 1 + !single_segment +
			   id_nbytes[fhd & 3] + size_nbytes[fhd >> 6] +
			   (single_segment && !(fhd >> 6));
	z->state = HEADER;
	return LT_OK;
}

static u64 le(const u8 *p, size_t nbytes)
{
	u64 v = 0;

	while (nbytes--)
		v = v << 8 | p[nbytes];
	return v;
}

/* RFC 8878 §3.1.1.1.2 to §3.1.1.1.4. */
static int header(struct zstd *z)
{
	const u8 fhd = z->field.bytes[MAGIC_NBYTES];
	const u8 *p = z->field.bytes + MAGIC_NBYTES + 1;
	const u8 *end = z->field.bytes + z->header_nbytes;
	static const u8 id_nbytes[4] = {0, 1, 2, 4};

	z->base.window = 0;
	if (!(fhd & 0x20)) {
		const u64 base = (u64)1 << (10 + (*p >> 3));

		z->base.window = base + base / 8 * (*p & 7);
		p++;
	}
	if (le(p, id_nbytes[fhd & 3]) != 0)
		return LT_ERR_DICTIONARY;
	p += id_nbytes[fhd & 3];
	if (z->has_size) {
		z->content_size = le(p, (size_t)(end - p));
		if (end - p == 2)
			z->content_size += 256;
	}
	if (fhd & 0x20)
		z->base.window = z->content_size;
	if (z->base.window > z->window_max)
		return LT_ERR_WINDOW;
	z->state = WINDOW;
	return LT_OK;
}

static u32 block_bits(const u8 *p)
{
	return (u32)le(p, LT_ZSTD_BLOCK_HEADER_NBYTES);
}

/* The bytes that the blocks of a frame take, if this input has all of them and
 * none is larger than 'max', either by its header or as it stands there; else
 * 0. */
static size_t blocks_nbytes(const u8 *in, size_t in_nbytes, u64 max)
{
	size_t pos = 0;
	u32 bits;

	do {
		u32 nbytes;

		if (in_nbytes - pos < LT_ZSTD_BLOCK_HEADER_NBYTES)
			return 0;
		bits = block_bits(in + pos);
		nbytes = (bits >> 1 & 3) == RLE ? 1 : bits >> 3;
		pos += LT_ZSTD_BLOCK_HEADER_NBYTES;
		if (bits >> 3 > max || nbytes > max || nbytes > in_nbytes - pos)
			return 0;
		pos += nbytes;
	} while (!(bits & 1));
	return pos;
}

/* RFC 8878 §3.1.1.2.4: most bytes that a block of the frame is in either form. */
static u64 block_nbytes_max(const struct zstd *z)
{
	return z->base.window < LT_ZSTD_BLOCK_NBYTES_MAX ?
	       z->base.window : LT_ZSTD_BLOCK_NBYTES_MAX;
}

static void close_frame(struct zstd *z)
{
	z->base.n_members++;
	z->state = BETWEEN;
}

/*
 * A frame that is small, whole and sound is decoded at once: true.  Else it
 * goes its way block by block, which is where verdicts are taken.  Small is
 * what is no larger than a block of the frame may be: of larger frames libzstd
 * checks less when it has all of them.
 */
static bool small_frame(struct zstd *z, struct lt_cursor *io)
{
	const u64 max = block_nbytes_max(z);
	const size_t sum = z->has_checksum ? LT_ZSTD_CHECKSUM_NBYTES : 0;
	const size_t most = LT_ZSTD_SMALL_NBYTES - z->header_nbytes;
	size_t nbytes;

	if (!z->has_size || z->content_size > max ||
	    z->content_size > io->out_nbytes)
		return false;
	nbytes = blocks_nbytes(io->in, lt_min(io->in_nbytes, most), max);
	if (!nbytes || nbytes + sum > lt_min(io->in_nbytes, most) ||
	    !lt_unzstd_small(&z->body, z->field.bytes, z->header_nbytes, io->in,
			     nbytes + (z->check_crc ? sum : 0), z->check_crc,
			     io->out, (size_t)z->content_size))
		return false;
	lt_cursor_skip(io, nbytes + sum);
	lt_cursor_made(io, (size_t)z->content_size);
	if (z->content_size)
		z->base.out_pos = z->base.part_pos;
	close_frame(z);
	return true;
}

static int open_frame(struct zstd *z, struct lt_cursor *io)
{
	if (z->base.window > LT_WINDOW_FREE && !z->grant_all)
		return LT_WINDOW_WAIT;
	if (small_frame(z, io))
		return LT_OK;
	z->frame_out_nbytes = 0;
	z->state = BLOCK_HEADER;
	z->field.fill = 0;
	return lt_unzstd_open(&z->body, z->field.bytes, z->header_nbytes,
			      z->base.window, z->check_crc);
}

/* RFC 8878 §3.1.1.2: Last_Block, Block_Type, Block_Size, 24 bits in all. */
static int block_header(struct zstd *z)
{
	const u32 bits = block_bits(z->field.bytes);
	const u32 kind = bits >> 1 & 3;
	const u32 nbytes = bits >> 3;
	int ret = lt_unzstd_block(&z->body, z->field.bytes);

	if (ret != LT_OK)
		return ret;
	z->last_block = bits & 1;
	z->left = kind == RLE ? 1 : nbytes;
	/* libzstd copies a raw block piece by piece as it arrives and notices
	 * too late, at a point that depends on the pieces. */
	if (z->has_size && (kind == RAW || kind == RLE) &&
	    nbytes > z->content_size - z->frame_out_nbytes)
		return LT_ERR_DATA;
	z->block_from = z->frame_out_nbytes;
	z->field.fill = 0;
	z->state = z->left ? BLOCK : FLUSH;
	return LT_OK;
}

static int block(struct zstd *z, struct lt_cursor *io)
{
	const size_t room = io->out_nbytes;
	int ret = lt_unzstd_step(&z->body, &z->left, io);
	const size_t made = room - io->out_nbytes;

	if (ret != LT_OK)
		return ret;
	z->frame_out_nbytes += made;
	if (made)
		z->base.out_pos = z->base.part_pos;
	/* libzstd refuses it if its buffer is no larger, but that may be one of
	 * an earlier frame. */
	if (z->frame_out_nbytes - z->block_from > block_nbytes_max(z))
		return LT_ERR_DATA;
	if (!z->left)
		z->state = FLUSH;
	return LT_OK;
}

/* The block is in and out.  Judge the size, then go on or close.  More than the
 * frame promises is LT_ERR_DATA, as it is when libzstd has no room for it. */
static int end_block(struct zstd *z)
{
	int ret;

	if (z->has_size && z->frame_out_nbytes > z->content_size)
		return LT_ERR_DATA;
	if (z->has_size && z->last_block &&
	    z->frame_out_nbytes < z->content_size)
		return LT_ERR_LENGTH;
	if (!z->last_block) {
		z->state = BLOCK_HEADER;
		return LT_OK;
	}
	ret = lt_unzstd_close(&z->body);
	if (ret != LT_OK)
		return ret;
	if (z->has_checksum)
		z->state = CHECKSUM;
	else
		close_frame(z);
	return LT_OK;
}

static int checksum(struct zstd *z)
{
	int ret = LT_OK;

	if (z->check_crc)
		ret = lt_unzstd_checksum(&z->body, z->field.bytes);
	if (ret == LT_OK)
		close_frame(z);
	return ret;
}

/* Judge each byte as it comes. */
static int magic_byte(struct zstd *z, u8 byte)
{
	const u8 *want = z->field.fill ? z->field.bytes[0] == frame_magic[0] ?
			 frame_magic : skip_magic : NULL;

	if (want ? byte != want[z->field.fill]
		 : byte != frame_magic[0] && (byte & 0xf0) != skip_magic[0])
		return lt_decoder_no_beginning(&z->base);
	z->field.bytes[z->field.fill++] = byte;
	if (z->field.fill == MAGIC_NBYTES)
		z->state = want == frame_magic ? DESCRIPTOR : SKIP_LENGTH;
	return LT_OK;
}

/* One state's worth of work.  It either changes the state, or uses up the
 * input or the output room, or returns a verdict. */
static int advance(struct zstd *z, struct lt_cursor *io)
{
	size_t n;
	int ret;

	switch (z->state) {
	case BETWEEN:
		z->base.part_pos = io->in_pos;
		z->field.fill = 0;
		z->state = MAGIC;
		return LT_OK;
	case MAGIC:
		ret = magic_byte(z, io->in[0]);
		if (ret == LT_OK)
			lt_cursor_skip(io, 1);
		return ret;
	case SKIP_LENGTH:
		/* The length follows the magic in the stash. */
		if (!lt_field_collect(&z->field, io, MAGIC_NBYTES + 4))
			return LT_OK;
		z->left = lt_le32(z->field.bytes + MAGIC_NBYTES);
		z->state = SKIP;
		return LT_OK;
	case SKIP:
		n = lt_min(z->left, io->in_nbytes);
		lt_cursor_skip(io, n);
		z->left -= (u32)n;
		if (!z->left)
			close_frame(z);
		return LT_OK;
	case DESCRIPTOR:
		z->field.bytes[z->field.fill++] = io->in[0];
		lt_cursor_skip(io, 1);
		return descriptor(z, z->field.bytes[MAGIC_NBYTES]);
	case HEADER:
		return lt_field_collect(&z->field, io, z->header_nbytes) ?
		       header(z) : LT_OK;
	case WINDOW:
		return open_frame(z, io);
	case BLOCK_HEADER:
		return lt_field_collect(&z->field, io,
					LT_ZSTD_BLOCK_HEADER_NBYTES) ?
		       block_header(z) : LT_OK;
	case BLOCK:
		return block(z, io);
	case FLUSH:
		return z->body.pending ? block(z, io) : end_block(z);
	case CHECKSUM:
		return lt_field_collect(&z->field, io,
					LT_ZSTD_CHECKSUM_NBYTES) ?
		       checksum(z) : LT_OK;
	}
	return LT_ERR_MISUSE;
}

/* Can the state do something with this input and this output room? */
static bool can_advance(const struct zstd *z, const struct lt_cursor *io)
{
	switch (z->state) {
	case SKIP:
		return io->in_nbytes || !z->left;
	case HEADER:
		return io->in_nbytes || z->field.fill == z->header_nbytes;
	case WINDOW:
		return true;
	case BLOCK:
		return io->out_nbytes && (io->in_nbytes || z->body.pending);
	case FLUSH:
		return io->out_nbytes || !z->body.pending;
	default:
		return io->in_nbytes;
	}
}

static int zstd_step(struct lt_decoder *d, struct lt_cursor *io)
{
	struct zstd *z = (struct zstd *)d;

	while (can_advance(z, io)) {
		const enum state state = z->state;
		const size_t in_nbytes = io->in_nbytes;
		const size_t out_nbytes = io->out_nbytes;
		int ret = advance(z, io);

		if (ret == LT_WINDOW_WAIT)
			return ret;
		if (ret != LT_OK)
			return lt_decoder_fail(d, ret);
		if (state == z->state && in_nbytes == io->in_nbytes &&
		    out_nbytes == io->out_nbytes) {
			if (state == FLUSH && !z->body.pending)
				continue;
			/* A decoder that stands still with room on both
			 * sides would make its caller spin. */
			return in_nbytes ? lt_decoder_fail(d, LT_ERR_DATA)
					 : LT_OK;
		}
	}
	return LT_OK;
}

static int zstd_finish(struct lt_decoder *d, u64 in_total)
{
	const struct zstd *z = (const struct zstd *)d;

	if (z->state == BETWEEN)
		return LT_OK;
	/* Less than a magic begins a frame only if a frame is due. */
	if (z->state == MAGIC && d->n_members)
		return lt_decoder_fail(d, LT_ERR_TRAILING);
	d->error_pos = in_total;
	return LT_ERR_TRUNCATED;
}

bool lt_zstd_between(const struct lt_decoder *d, u64 window)
{
	const struct zstd *z = (const struct zstd *)d;

	return z->state == BETWEEN && window <= z->window_max;
}

const struct lt_format_ops lt_format_zstd = {
	.new = zstd_new,
	.free = zstd_free,
	.reset = zstd_reset,
	.step = zstd_step,
	.finish = zstd_finish,
	.grant_window = zstd_grant_window,
	.trim = zstd_trim,
	.ahead = &lt_ahead_zstd,
};
