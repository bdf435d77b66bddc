/*
 * lt_codec.c: one decoder for all formats, reused stream after stream.
 *
 * The output budget is exact: a stream fails if and only if it produces byte
 * number budget + 1.  To learn that, once the budget is used up the adapter
 * gets one byte of scratch to write to.
 */
#include "lt_codec.h"

struct lt_codec {
	int format;
	int status;			/* a verdict is final */
	struct lt_gzip *gzip;		/* made on first use, then kept */
	struct lt_zstd *zstd;
	u64 budget_left;
	u64 in_total;
	u64 error_pos;
};

lt_codec *lt_codec_new(void)
{
	lt_codec *c = calloc(1, sizeof(*c));

	if (c)
		c->status = LT_ERR_MISUSE;	/* until lt_codec_begin */
	return c;
}

void lt_codec_free(lt_codec *c)
{
	if (!c)
		return;
	lt_gzip_free(c->gzip);
	lt_zstd_free(c->zstd);
	free(c);
}

int lt_codec_begin(lt_codec *c, int format, bool check_crc, bool grant_all,
		   u64 out_budget, u64 window_max)
{
	int ret = LT_OK;

	c->format = format;
	c->budget_left = out_budget;
	c->in_total = 0;
	c->error_pos = 0;
	switch (format) {
	case LT_FORMAT_NONE:
		break;
	case LT_FORMAT_GZIP:
		if (!c->gzip)
			c->gzip = lt_gzip_new();
		if (c->gzip)
			lt_gzip_reset(c->gzip, check_crc);
		else
			ret = LT_ERR_MEMORY;
		break;
	case LT_FORMAT_ZSTD:
#ifdef LT_HAVE_ZSTD
		if (!c->zstd)
			c->zstd = lt_zstd_new();
		ret = c->zstd ? lt_zstd_reset(c->zstd, grant_all, window_max)
			      : LT_ERR_MEMORY;
#else
		(void)grant_all;
		(void)window_max;
		ret = LT_ERR_UNSUPPORTED;
#endif
		break;
	default:
		ret = LT_ERR_UNSUPPORTED;
	}
	c->status = ret;
	return ret;
}

static int copy(struct lt_cursor *io)
{
	size_t n = lt_min(io->in_nbytes, io->out_nbytes);

	if (n) {
		memcpy(io->out, io->in, n);
		lt_cursor_skip(io, n);
		io->out += n;
		io->out_nbytes -= n;
	}
	return LT_OK;
}

static int step(lt_codec *c, struct lt_cursor *io)
{
	int ret;

	switch (c->format) {
	case LT_FORMAT_GZIP:
		ret = lt_gzip_step(c->gzip, io);
		if (ret < 0)
			c->error_pos = lt_gzip_error_pos(c->gzip);
		return ret;
	case LT_FORMAT_ZSTD:
		ret = lt_zstd_step(c->zstd, io);
		if (ret < 0)
			c->error_pos = lt_zstd_error_pos(c->zstd);
		return ret;
	default:
		return copy(io);
	}
}

/* Where the member or frame begins that made the last output. */
static u64 out_pos(const lt_codec *c)
{
	switch (c->format) {
	case LT_FORMAT_GZIP:
		return lt_gzip_out_pos(c->gzip);
	case LT_FORMAT_ZSTD:
		return lt_zstd_out_pos(c->zstd);
	default:
		return 0;
	}
}

int lt_codec_step(lt_codec *c, const u8 *in, size_t in_nbytes,
		  u8 *out, size_t out_nbytes_avail,
		  size_t *in_nbytes_ret, size_t *out_nbytes_ret)
{
	/* "Nothing" may be NULL for the caller; arithmetic wants an object. */
	static const u8 nothing[1];
	u8 scratch;
	struct lt_cursor io = {.in = in ? in : nothing, .in_nbytes = in_nbytes,
			       .in_pos = c->in_total};
	size_t produced = 0;
	int ret = c->status;

	*in_nbytes_ret = 0;
	*out_nbytes_ret = 0;
	if (ret < 0)
		return ret;

	if (c->budget_left) {
		const size_t room = c->budget_left < out_nbytes_avail ?
				    (size_t)c->budget_left : out_nbytes_avail;

		io.out = out ? out : &scratch;
		io.out_nbytes = room;
		ret = step(c, &io);
		produced = room - io.out_nbytes;
		c->budget_left -= produced;
	}
	if (ret == LT_OK && !c->budget_left) {
		io.out = &scratch;
		io.out_nbytes = 1;
		ret = step(c, &io);
		if (!io.out_nbytes) {
			ret = LT_ERR_OUT_BUDGET;
			c->error_pos = out_pos(c);
		}
	}
	c->in_total = io.in_pos;
	*in_nbytes_ret = in_nbytes - io.in_nbytes;
	*out_nbytes_ret = produced;
	if (ret < 0)
		c->status = ret;
	return ret;
}

int lt_codec_finish(lt_codec *c)
{
	u8 scratch;
	size_t in_nbytes, out_nbytes;
	int ret;

	/* What is still pending shows now, as a byte nobody asked for. */
	ret = lt_codec_step(c, NULL, 0, &scratch, 1, &in_nbytes, &out_nbytes);
	if (ret < 0)
		return ret;
	if (out_nbytes) {
		c->error_pos = c->in_total;
		c->status = LT_ERR_MISUSE;
		return c->status;
	}
	if (c->format == LT_FORMAT_GZIP) {
		ret = lt_gzip_finish(c->gzip, c->in_total);
		c->error_pos = lt_gzip_error_pos(c->gzip);
	} else if (c->format == LT_FORMAT_ZSTD) {
		ret = lt_zstd_finish(c->zstd, c->in_total);
		c->error_pos = lt_zstd_error_pos(c->zstd);
	}
	if (ret < 0)
		c->status = ret;
	return ret;
}

u64 lt_codec_error_offset(const lt_codec *c)
{
	return c->error_pos;
}

void lt_codec_grant_window(lt_codec *c)
{
	if (c->format == LT_FORMAT_ZSTD && c->zstd)
		lt_zstd_grant_window(c->zstd);
}

void lt_codec_trim(lt_codec *c)
{
	if (c->zstd)
		lt_zstd_trim(c->zstd);
}
