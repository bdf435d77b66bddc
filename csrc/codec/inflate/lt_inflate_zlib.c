/*
 * lt_inflate_zlib.c: raw deflate by zlib, which has no habits to deal with: it
 * gives back what it read too much, at once.
 */
#include "codec/inflate/lt_inflate.h"
#include "lt_api_c.h"

#ifdef LT_HAVE_ZLIB
#define ZLIB_CONST
#include <zlib.h>

struct by_zlib {
	struct lt_inflate base;
	z_stream s;
};

static struct lt_inflate *zlib_new(void)
{
	struct by_zlib *f = calloc(1, sizeof(*f));

	if (!f || inflateInit2(&f->s, -15) != Z_OK) {
		free(f);
		return NULL;
	}
	return &f->base;
}

static void zlib_free(struct lt_inflate *base)
{
	struct by_zlib *f = (struct by_zlib *)base;

	inflateEnd(&f->s);
	free(f);
}

static void zlib_reset(struct lt_inflate *base)
{
	inflateReset(&((struct by_zlib *)base)->s);
}

static int zlib_step(struct lt_inflate *base, struct lt_cursor *io,
		     u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		     size_t *surplus_nbytes_ret)
{
	z_stream *s = &((struct by_zlib *)base)->s;
	const u32 in_nbytes = (u32)lt_min(io->in_nbytes, LT_INFLATE_STEP_MAX);
	const u32 out_nbytes = (u32)lt_min(io->out_nbytes, LT_INFLATE_STEP_MAX);
	int ret;

	(void)surplus_ret;
	s->next_in = io->in;
	s->avail_in = in_nbytes;
	s->next_out = io->out;
	s->avail_out = out_nbytes;
	ret = inflate(s, Z_NO_FLUSH);
	lt_cursor_skip(io, in_nbytes - s->avail_in);
	lt_cursor_made(io, out_nbytes - s->avail_out);

	*surplus_nbytes_ret = 0;
	switch (ret) {
	case Z_OK:
	case Z_BUF_ERROR:			/* no progress was possible */
		return LT_OK;
	case Z_STREAM_END:
		return LT_INFLATE_END;
	case Z_MEM_ERROR:
		return LT_ERR_MEMORY;
	default:
		return LT_ERR_DATA;
	}
}

const struct lt_inflater lt_inflater_zlib = {
	.name = "zlib",
	.new = zlib_new,
	.free = zlib_free,
	.reset = zlib_reset,
	.step = zlib_step,
};
#else
const struct lt_inflater lt_inflater_zlib = {.name = "zlib"};
#endif
