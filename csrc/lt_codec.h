/*
 * lt_codec.h: the inside of the codec.
 *
 * lt_codec.c owns what all formats share: the output budget, the sticky
 * status and the 64-bit position.  An adapter (lt_gzip.c, lt_zstd.c) owns one
 * format and has four functions: reset, step, finish, free.  lt_inflate.c
 * hides which library inflates raw deflate.
 *
 * An adapter's step works on a cursor until input or output room runs out and
 * decides everything in byte order of the stream, so that a verdict cannot
 * depend on how the bytes were cut.
 */
#ifndef LT_CODEC_H
#define LT_CODEC_H

#include "lt_tee.h"

struct lt_cursor {
	const u8 *in;
	size_t in_nbytes;
	u8 *out;
	size_t out_nbytes;
	u64 in_pos;		/* offset of 'in' in the stream */
};

static inline void lt_cursor_skip(struct lt_cursor *c, size_t nbytes)
{
	c->in += nbytes;
	c->in_nbytes -= nbytes;
	c->in_pos += nbytes;
}

/* --- raw deflate (lt_inflate.c) -------------------------------------- */

/* Most bytes an inflater can have read past the end of a deflate stream. */
#define LT_INFLATE_SURPLUS_MAX 8

enum { LT_INFLATE_END = 1 };

struct lt_inflate;
struct lt_inflate *lt_inflate_new(void);
void lt_inflate_free(struct lt_inflate *f);
void lt_inflate_reset(struct lt_inflate *f);
/*
 * Inflate from cursor to cursor: LT_OK (more to come), LT_INFLATE_END or an
 * error.  Needs output room, even where none will be used.  What was decoded
 * before corrupt data is delivered before LT_ERR_DATA is returned, with ISA-L
 * up to 258 bytes less.
 *
 * At the end, '*surplus_nbytes_ret' bytes that follow the deflate stream were
 * taken from the input, perhaps in an earlier call; they are in 'surplus_ret'.
 */
int lt_inflate_step(struct lt_inflate *f, struct lt_cursor *io,
		    u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		    size_t *surplus_nbytes_ret);
u32 lt_crc32(u32 crc, const u8 *p, size_t nbytes);

/* --- adapters --------------------------------------------------------- */

/*
 * step: LT_OK when it needs input or output room, or a verdict.  'error_pos'
 * is valid after a negative one; 'out_pos' is where the member or frame
 * begins that made the last output.
 * finish: the input has ended and step has nothing left to say.
 */
struct lt_gzip;
struct lt_gzip *lt_gzip_new(void);
void lt_gzip_free(struct lt_gzip *g);
void lt_gzip_reset(struct lt_gzip *g, bool check_crc);
int lt_gzip_step(struct lt_gzip *g, struct lt_cursor *io);
int lt_gzip_finish(struct lt_gzip *g, u64 in_total);
u64 lt_gzip_error_pos(const struct lt_gzip *g);
u64 lt_gzip_out_pos(const struct lt_gzip *g);

struct lt_zstd;
struct lt_zstd *lt_zstd_new(void);
void lt_zstd_free(struct lt_zstd *z);
int lt_zstd_reset(struct lt_zstd *z, bool grant_all, u64 window_max);
int lt_zstd_step(struct lt_zstd *z, struct lt_cursor *io);
int lt_zstd_finish(struct lt_zstd *z, u64 in_total);
u64 lt_zstd_error_pos(const struct lt_zstd *z);
u64 lt_zstd_out_pos(const struct lt_zstd *z);
void lt_zstd_grant_window(struct lt_zstd *z);
void lt_zstd_trim(struct lt_zstd *z);

#endif
