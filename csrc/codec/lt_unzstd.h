/*
 * lt_unzstd.h: the bodies of zstd frames, by libzstd, one piece a call.
 *
 *	lt_unzstd_reset(u, window_max);		a stream begins
 *	lt_unzstd_open(u, header, ...);		a frame of it begins
 *	lt_unzstd_block(u, block_header);	a block of it, then
 *	lt_unzstd_step(u, &left, io);		until all is in and out
 *	lt_unzstd_close(u, ...);		after the last block
 *
 * or, of a small frame that is there as a whole and has room for its output,
 *
 *	lt_unzstd_small(u, header, ...);	in place of all of that
 *
 * The caller walks the frame and hands over what it has read of it, in order
 * and unaltered but for two things: the bit that says that a block is the last
 * is lt_unzstd_close's affair, and with 'check' false no checksum is computed,
 * or taken.  Every function that returns a status returns LT_OK or a verdict,
 * after which only reset is left.
 */
#ifndef LT_UNZSTD_H
#define LT_UNZSTD_H

#include "codec/lt_cursor.h"

enum {
	LT_ZSTD_HEADER_NBYTES_MAX = 18,		/* 4 + 1 + 1 + 4 + 8 */
	LT_ZSTD_BLOCK_HEADER_NBYTES = 3,
	LT_ZSTD_CHECKSUM_NBYTES = 4,
	LT_ZSTD_BLOCK_NBYTES_MAX = 128 << 10,	/* in either form */
	/* As much as a frame of one block can have. */
	LT_ZSTD_SMALL_NBYTES = LT_ZSTD_HEADER_NBYTES_MAX +
			       LT_ZSTD_BLOCK_HEADER_NBYTES +
			       LT_ZSTD_BLOCK_NBYTES_MAX +
			       LT_ZSTD_CHECKSUM_NBYTES,
};

/* All zeros is one that was not used yet. */
struct lt_unzstd {
	struct ZSTD_DCtx_s *dctx;	/* by reset until free or trim */
	bool is_large;		/* it has memory beyond LT_WINDOW_FREE */
	bool is_checked;	/* same, its checksum is due after the blocks */
	bool pending;		/* libzstd may hold output back */
	u8 *small;		/* for small frames; made when first needed */
};

/* LT_ERR_MEMORY: no context.  'window_max' is a safety net here: whether a
 * window is granted is decided before a frame is opened. */
int lt_unzstd_reset(struct lt_unzstd *u, u64 window_max);
void lt_unzstd_free(struct lt_unzstd *u);
/* Give back what is above LT_WINDOW_FREE.  Between two streams. */
void lt_unzstd_trim(struct lt_unzstd *u);

/* A frame by its header of 'nbytes' bytes, from the magic on, whose window is
 * 'window' bytes and which has a content size or not. */
int lt_unzstd_open(struct lt_unzstd *u, const u8 *header, size_t nbytes,
		   u64 window, bool check);
int lt_unzstd_block(struct lt_unzstd *u,
		    const u8 header[LT_ZSTD_BLOCK_HEADER_NBYTES]);
/* Decode the next '*left' bytes of the block, as far as there is input and
 * room; '*left' becomes what is to come.  Needs room, and input or
 * lt_unzstd.pending, which says that there may be output beyond the room. */
int lt_unzstd_step(struct lt_unzstd *u, u32 *left, struct lt_cursor *io);
/* The last block is in, and its output out. */
int lt_unzstd_close(struct lt_unzstd *u);
/* Only after lt_unzstd_close, if 'is_checked'. */
int lt_unzstd_checksum(struct lt_unzstd *u,
		       const u8 checksum[LT_ZSTD_CHECKSUM_NBYTES]);

/*
 * The frame with that header, and with 'body' as all that follows it but for
 * the checksum if there is one and 'check' is false: write the 'out_nbytes'
 * bytes that it inflates to.  False: it is not such a frame, or there is no
 * memory; open it, it says why.  Header and body have LT_ZSTD_SMALL_NBYTES
 * bytes together at most.
 */
bool lt_unzstd_small(struct lt_unzstd *u,
		     const u8 *header, size_t header_nbytes,
		     const u8 *body, size_t body_nbytes, bool check,
		     u8 *out, size_t out_nbytes);

#endif
