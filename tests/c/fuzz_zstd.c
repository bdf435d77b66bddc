/*
 * fuzz_zstd.c: lt_zstd against libzstd left to itself.
 *
 * Accepted by us if and only if libzstd decodes all of it and ends between two
 * frames.  It gets five bytes at a time, or what it wants for a block: a whole
 * frame at once would take a path on which it checks no window.  Differences
 * that are meant: it also reads the formats before 0.8, and does not compare
 * the content size of a frame that ends with an empty block.  With FLAG_NO_CRC
 * neither looks at the checksums of the contents.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#define ZSTD_STATIC_LINKING_ONLY	/* ZSTD_d_forceIgnoreChecksum */
#include <zstd.h>

#include "fuzz_common.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes);

static u8 ours[OUT_BUDGET_MAX], theirs[OUT_BUDGET_MAX];

enum verdict { ACCEPT, REFUSE, UNKNOWN };

static enum verdict libzstd(const struct input *in, size_t *out_nbytes)
{
	static ZSTD_DCtx *d;
	ZSTD_outBuffer out = {theirs, in->out_budget, 0};
	size_t ret = 0;

	if (!d) {
		d = ZSTD_createDCtx();
		CHECK(d);
		ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, 20);
	}
	ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
	ret = ZSTD_DCtx_setParameter(d, ZSTD_d_forceIgnoreChecksum,
				     in->flags & FLAG_NO_CRC ?
				     ZSTD_d_ignoreChecksum :
				     ZSTD_d_validateChecksum);
	CHECK(!ZSTD_isError(ret));
	ret = 0;
	*out_nbytes = 0;
	for (size_t pos = 0; pos < in->nbytes; ) {
		/* 'ret' is what it wants: a block, and the 3 bytes of the
		 * header after it. */
		size_t n = lt_min(ret > 8 ? ret - 3 : 5, in->nbytes - pos);
		ZSTD_inBuffer piece = {in->data + pos, n, 0};

		ret = ZSTD_decompressStream(d, &out, &piece);
		*out_nbytes = out.pos;
		if (ZSTD_isError(ret))
			return REFUSE;
		if (out.pos == out.size)
			return UNKNOWN;
		CHECK(piece.pos || n == 0);
		pos += piece.pos;
	}
	return ret == 0 ? ACCEPT : REFUSE;
}

/* Of a block from which more comes out than the frame promises, or than its
 * window allows, libzstd says so if it has no room for it. */
static bool may_be_too_much(const struct input *in, u64 pos)
{
	ZSTD_frameHeader h;

	return !ZSTD_getFrameHeader(&h, in->data + pos, in->nbytes - pos) &&
	       (h.frameContentSize != ZSTD_CONTENTSIZE_UNKNOWN ||
		h.blockSizeMax < ZSTD_BLOCKSIZE_MAX);
}

/* v0.5, v0.6 and v0.7 differ from v0.8 in the first byte.  Of a header that is
 * wrong libzstd looks for them where the latest piece of it begins. */
static bool old_format(const struct input *in, u64 pos)
{
	for (u64 end = pos + 18; pos < end && pos + 4 <= in->nbytes; pos++)
		if (in->data[pos] >= 0x22 && in->data[pos] < 0x28 &&
		    !memcmp(in->data + pos + 1, "\xb5\x2f\xfd", 3))
			return true;
	return false;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return lt_kernel_use(NULL);
}

int LLVMFuzzerTestOneInput(const u8 *p, size_t nbytes)
{
	struct outcome r;
	struct input in;
	size_t out_nbytes;
	enum verdict v;

	if (!take_input(&in, p, nbytes))
		return 0;
	v = libzstd(&in, &out_nbytes);
	decode_both_ways(&r, &in, LT_FORMAT_ZSTD, !(in.flags & FLAG_NO_CRC),
			 ours);
	if (v == UNKNOWN || r.status == LT_ERR_OUT_BUDGET)
		return 0;
	if ((r.status == LT_ERR_HEADER || r.status == LT_ERR_TRAILING) &&
	    old_format(&in, r.result.error_offset))
		return 0;
	if (r.status == LT_ERR_LENGTH ||
	    (r.status == LT_ERR_DATA &&
	     may_be_too_much(&in, r.result.error_offset)))
		return 0;
	CHECK((r.status == LT_OK) == (v == ACCEPT));
	if (v == ACCEPT) {
		CHECK(r.out_nbytes == out_nbytes);
		CHECK(!memcmp(ours, theirs, out_nbytes));
		CHECK(r.result.in_total == in.nbytes);
		CHECK(r.result.out_total == out_nbytes);
	}
	return 0;
}
