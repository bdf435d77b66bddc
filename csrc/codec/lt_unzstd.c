/*
 * lt_unzstd.c: libzstd, kept on a short lead.
 *
 * libzstd reports an error without saying how much it wrote before; with one
 * block a call that is nothing, whatever the cuts.  A block is at most 128 KiB,
 * so the extra calls cost nothing measurable, and it still reads whole blocks
 * in place.
 *
 * A wrong content size is told from corrupt data: the "last" bit of the last
 * block is taken away, its output counted by the caller, and an empty last
 * block of our own closes the frame.
 *
 * Where nobody asked for the checksum of the content (XXH64), libzstd is shown
 * a header that promises none.  That is 8 % of decoding a layer of programs
 * and 14 % of one of texts, and takes no call that only some builds of libzstd
 * have.
 *
 * A small frame goes to libzstd as a whole, behind a header that is ours to
 * change.  zstd:chunked is made of such frames; to do without four calls each
 * and the copy out of libzstd's window makes them 4 to 5 % faster.
 */
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/lt_codec.h"
#include "codec/lt_unzstd.h"
#include "lt_api_c.h"

/* In a frame header: RFC 8878 §3.1.1.1.1. */
enum {
	DESCRIPTOR_POS = 4,
	HAS_CHECKSUM = 0x04,
};

int lt_unzstd_reset(struct lt_unzstd *u, u64 window_max)
{
	int log = 10;			/* ZSTD_WINDOWLOG_ABSOLUTEMIN */

	if (!u->dctx)
		u->dctx = ZSTD_createDCtx();
	if (!u->dctx)
		return LT_ERR_MEMORY;
	/* Keeps the window's memory: with a context a layer, 40 layers cost
	 * 176 MiB and 8 % more CPU (page faults). */
	ZSTD_DCtx_reset(u->dctx, ZSTD_reset_session_and_parameters);
	while (log < 31 && (u64)1 << log < window_max)
		log++;
	ZSTD_DCtx_setParameter(u->dctx, ZSTD_d_windowLogMax, log);
	return LT_OK;
}

void lt_unzstd_free(struct lt_unzstd *u)
{
	ZSTD_freeDCtx(u->dctx);
	free(u->small);
	u->dctx = NULL;
	u->small = NULL;
	u->is_large = false;
}

void lt_unzstd_trim(struct lt_unzstd *u)
{
	if (u->is_large)
		lt_unzstd_free(u);
}

static int status_of(size_t ret)
{
	switch (ZSTD_getErrorCode(ret)) {
	case ZSTD_error_memory_allocation:
		return LT_ERR_MEMORY;
	case ZSTD_error_checksum_wrong:
		return LT_ERR_CHECKSUM;
	case ZSTD_error_frameParameter_windowTooLarge:
		return LT_ERR_WINDOW;
	default:
		/* More output than there is room for among it: libzstd sizes
		 * its buffer by the smaller of window and content size, or has
		 * a larger one from an earlier frame, and names the same block
		 * differently.  We never give it too little to flush to. */
		return LT_ERR_DATA;
	}
}

/* Give libzstd 'nbytes' bytes, take what comes out.  *nbytes becomes what it
 * left; 'closed_ret' says that the frame is complete. */
static int run(struct lt_unzstd *u, const u8 *p, size_t *nbytes,
	       struct lt_cursor *io, bool *closed_ret)
{
	ZSTD_inBuffer in = {p, *nbytes, 0};
	ZSTD_outBuffer out = {io->out, io->out_nbytes, 0};
	size_t ret = ZSTD_decompressStream(u->dctx, &out, &in);

	if (ZSTD_isError(ret))
		return status_of(ret);
	*nbytes -= in.pos;
	lt_cursor_made(io, out.pos);
	*closed_ret = ret == 0;
	return LT_OK;
}

/* A few bytes that yield no output: they are taken at once or wrong.  'closes'
 * says whether they have to complete the frame. */
static int run_whole(struct lt_unzstd *u, const u8 *p, size_t nbytes,
		     bool closes)
{
	u8 none;
	struct lt_cursor nowhere = {.out = &none};
	bool closed = false;

	while (nbytes) {
		size_t left = nbytes;
		int ret = run(u, p, &left, &nowhere, &closed);

		if (ret != LT_OK)
			return ret;
		if (left == nbytes)
			return LT_ERR_DATA;
		p += nbytes - left;
		nbytes = left;
	}
	return closed == closes ? LT_OK : LT_ERR_DATA;
}

/* The header as libzstd is shown it; whether it promises a checksum. */
static bool copy_header(u8 *to, const u8 *header, size_t nbytes, bool check)
{
	memcpy(to, header, nbytes);
	if (!check)
		to[DESCRIPTOR_POS] &= (u8)~HAS_CHECKSUM;
	return to[DESCRIPTOR_POS] & HAS_CHECKSUM;
}

int lt_unzstd_open(struct lt_unzstd *u, const u8 *header, size_t nbytes,
		   u64 window, bool check)
{
	u8 shown[LT_ZSTD_HEADER_NBYTES_MAX];

	u->is_checked = copy_header(shown, header, nbytes, check);
	if (window > LT_WINDOW_FREE)
		u->is_large = true;
	u->pending = false;
	return run_whole(u, shown, nbytes, false);
}

int lt_unzstd_block(struct lt_unzstd *u,
		    const u8 header[LT_ZSTD_BLOCK_HEADER_NBYTES])
{
	const u8 not_the_last[LT_ZSTD_BLOCK_HEADER_NBYTES] = {
		header[0] & 0xfe, header[1], header[2],
	};

	u->pending = false;
	return run_whole(u, not_the_last, sizeof(not_the_last), false);
}

int lt_unzstd_step(struct lt_unzstd *u, u32 *left, struct lt_cursor *io)
{
	const size_t nbytes = lt_min(*left, io->in_nbytes);
	size_t rest = nbytes;
	bool closed;
	int ret = run(u, io->in, &rest, io, &closed);

	if (ret != LT_OK)
		return ret;
	lt_cursor_skip(io, nbytes - rest);
	*left -= (u32)(nbytes - rest);
	u->pending = !io->out_nbytes;	/* else there was room for all of it */
	return LT_OK;
}

int lt_unzstd_close(struct lt_unzstd *u)
{
	static const u8 last_empty_raw_block[] = {0x01, 0, 0};

	return run_whole(u, last_empty_raw_block, sizeof(last_empty_raw_block),
			 !u->is_checked);
}

int lt_unzstd_checksum(struct lt_unzstd *u,
		       const u8 checksum[LT_ZSTD_CHECKSUM_NBYTES])
{
	return run_whole(u, checksum, LT_ZSTD_CHECKSUM_NBYTES, true);
}

bool lt_unzstd_small(struct lt_unzstd *u,
		     const u8 *header, size_t header_nbytes,
		     const u8 *body, size_t body_nbytes, bool check,
		     u8 *out, size_t out_nbytes)
{
	size_t ret;

	if (!u->small)
		u->small = malloc(LT_ZSTD_SMALL_NBYTES);
	if (!u->small)
		return false;
	copy_header(u->small, header, header_nbytes, check);
	memcpy(u->small + header_nbytes, body, body_nbytes);
	ret = ZSTD_decompressDCtx(u->dctx, out, out_nbytes, u->small,
				  header_nbytes + body_nbytes);
	return ret == out_nbytes;	/* no error code is that small */
}
