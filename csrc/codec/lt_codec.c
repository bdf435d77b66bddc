/*
 * lt_codec.c: the table of formats, and what they share.
 *
 * LT_FORMAT_DETECT is none of the table: what a stream begins with says which
 * of the table's it is, and one byte is enough, as no two begin alike.  The
 * decoder that it leads to judges that byte again, and all others.
 *
 * The output budget is exact: a stream fails if and only if it produces byte
 * number budget + 1.  To learn that, once the budget is used up the decoder
 * gets one byte of scratch to write to.
 */
#include "codec/lt_codec.h"
#include "codec/lt_format.h"
#include "lt_api_c.h"

static const struct lt_format_ops *const formats[] = {
	[LT_FORMAT_NONE] = &lt_format_stored,
	[LT_FORMAT_GZIP] = &lt_format_gzip,
	[LT_FORMAT_ZSTD] = &lt_format_zstd,
};

struct lt_codec {
	const struct lt_format_ops *ops;	/* of the stream at work */
	struct lt_decoder *decoder;		/* same; NULL: none is, or not yet */
	int format;				/* same */
	struct lt_format_options options;	/* same */
	struct lt_decoder *kept[LT_ARRAY_SIZE(formats)];
	int status;				/* a verdict is final */
	u64 budget_left;
	u64 in_total;
	u64 error_pos;
};

const struct lt_format_ops *lt_format_ops(int format)
{
	return format >= 0 && (size_t)format < LT_ARRAY_SIZE(formats) ?
	       formats[format] : NULL;
}

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
	for (size_t i = 0; i < LT_ARRAY_SIZE(formats); i++)
		if (c->kept[i])
			formats[i]->free(c->kept[i]);
	free(c);
}

static int begin(lt_codec *c, int format)
{
	c->format = format;
	if (format == LT_FORMAT_DETECT)
		return LT_OK;
	c->ops = lt_format_ops(format);
	if (!c->ops)
		return LT_ERR_UNSUPPORTED;
	if (!c->kept[format])
		c->kept[format] = c->ops->new();
	c->decoder = c->kept[format];
	return c->decoder ? c->ops->reset(c->decoder, &c->options)
			  : LT_ERR_MEMORY;
}

/* Begin as what a stream with that first byte can be: a gzip member, a zstd
 * frame, or a frame to be skipped, whose first byte has any low half. */
static int detect(lt_codec *c, u8 first)
{
	if (first == 0x1f)
		return begin(c, LT_FORMAT_GZIP);
	if (first == 0x28 || (first & 0xf0) == 0x50)
		return begin(c, LT_FORMAT_ZSTD);
	return LT_ERR_HEADER;
}

int lt_codec_begin(lt_codec *c, int format, bool check_crc, bool grant_all,
		   u64 out_budget, u64 window_max)
{
	c->options = (struct lt_format_options){
		.check_crc = check_crc,
		.grant_all = grant_all,
		.window_max = window_max,
	};
	c->decoder = NULL;
	c->budget_left = out_budget;
	c->in_total = 0;
	c->error_pos = 0;
	c->status = begin(c, format);
	return c->status;
}

static int step(lt_codec *c, struct lt_cursor *io)
{
	int ret = c->ops->step(c->decoder, io);

	if (ret < 0)
		c->error_pos = c->decoder->error_pos;
	return ret;
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
	if (!c->decoder) {
		if (!in_nbytes)
			return LT_OK;
		ret = detect(c, *in);
		if (ret < 0) {
			c->status = ret;
			return ret;
		}
	}

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
			c->error_pos = c->decoder->out_pos;
		}
	}
	c->in_total = io.in_pos;
	*in_nbytes_ret = in_nbytes - io.in_nbytes;
	*out_nbytes_ret = produced;
	if (ret < 0)
		c->status = ret;
	return ret;
}

bool lt_codec_adopt(lt_codec *c, lt_ahead *a)
{
	if (c->status != LT_OK || !c->decoder || c->ops->ahead != a->ops ||
	    c->in_total != a->in_pos ||
	    c->options.check_crc != a->check_crc ||
	    c->budget_left < a->out_nbytes ||
	    !a->ops->stands(c->decoder, a))
		return false;
	a->ops->adopt(c->decoder, a);
	return true;
}

bool lt_codec_take(lt_codec *c, lt_ahead *a, u8 *out, size_t room,
		   size_t *nbytes_ret)
{
	const size_t n = lt_min(room, a->out_nbytes - a->n_taken);

	a->ops->take(c->decoder, a, out, n);
	a->n_taken += n;
	c->budget_left -= n;
	*nbytes_ret = n;
	if (a->n_taken < a->out_nbytes)
		return false;
	a->ops->pass(c->decoder, a);
	c->in_total += a->in_nbytes;
	return true;
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
	if (!c->decoder)
		return LT_OK;		/* nothing came, so nothing was detected */
	ret = c->ops->finish(c->decoder, c->in_total);
	if (ret < 0) {
		c->error_pos = c->decoder->error_pos;
		c->status = ret;
	}
	return ret;
}

u64 lt_codec_error_offset(const lt_codec *c)
{
	return c->error_pos;
}

u64 lt_codec_error_window(const lt_codec *c)
{
	return c->status == LT_ERR_WINDOW ? c->decoder->window : 0;
}

int lt_codec_format(const lt_codec *c)
{
	return c->format;
}

u64 lt_codec_n_members(const lt_codec *c)
{
	return c->decoder ? c->decoder->n_members : 0;
}

void lt_codec_grant_window(lt_codec *c)
{
	if (c->decoder)
		c->ops->grant_window(c->decoder);
}

void lt_codec_trim(lt_codec *c)
{
	for (size_t i = 0; i < LT_ARRAY_SIZE(formats); i++)
		if (c->kept[i])
			formats[i]->trim(c->kept[i]);
}
