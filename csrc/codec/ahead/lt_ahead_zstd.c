/*
 * lt_ahead_zstd.c: whole zstd frames, decoded before their turn.
 *
 * zstd:chunked and pzstd write a layer as many frames, none of which needs
 * another.  The decoder of a piece is that of lt_zstd.c, frame by frame, so
 * that a piece is as strict as the stream that it belongs to.
 *
 * Only frames with small windows are decoded ahead: a decoder keeps a frame's
 * window, and there are several at work.
 */
#define _GNU_SOURCE		/* memmem */
#include <zstd.h>

#include "codec/lt_format.h"
#include "codec/lt_zstd.h"

struct frames {
	struct lt_decoder *decoder;
	u8 bytes[LT_AHEAD_OUT_MAX + 1];	/* one more: room to see an end in */
};

static bool zstd_can(void)
{
	return true;
}

static void *new_frames(void)
{
	struct frames *f = malloc(sizeof(*f));

	if (!f)
		return NULL;
	f->decoder = lt_format_zstd.new();
	if (!f->decoder) {
		free(f);
		return NULL;
	}
	return f;
}

static void free_frames(void *work)
{
	struct frames *f = work;

	lt_format_zstd.free(f->decoder);
	free(f);
}

static bool find_frame(const u8 *in, size_t nbytes, size_t from, size_t *at_ret)
{
	static const u8 magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
	const u8 *at = memmem(in + from, nbytes - from, magic, sizeof(magic));

	if (at)
		*at_ret = (size_t)(at - in);
	return at;
}

static void decode_frames(lt_ahead *a, const u8 *in, size_t nbytes)
{
	struct frames *f = a->work;
	const struct lt_format_options o = {
		.check_crc = a->check_crc,
		.window_max = LT_AHEAD_OUT_MAX,
	};

	if (lt_format_zstd.reset(f->decoder, &o) != LT_OK)
		return;
	while (a->in_nbytes < nbytes && a->out_nbytes < LT_AHEAD_OUT_MAX) {
		const size_t rest = nbytes - a->in_nbytes;
		const size_t frame =
			ZSTD_findFrameCompressedSize(in + a->in_nbytes, rest);
		struct lt_cursor io = {
			.in = in + a->in_nbytes, .in_nbytes = frame,
			.out = f->bytes + a->out_nbytes,
			.out_nbytes = sizeof(f->bytes) - a->out_nbytes,
		};

		if (ZSTD_isError(frame) ||
		    lt_format_zstd.step(f->decoder, &io) != LT_OK ||
		    io.in_nbytes || !io.out_nbytes ||
		    f->decoder->n_members == a->n_members)
			return;
		a->in_nbytes += frame;
		a->out_nbytes = (size_t)(io.out - f->bytes);
		a->n_members = f->decoder->n_members;
	}
}

static bool stands_between(const struct lt_decoder *d, const lt_ahead *a)
{
	(void)a;
	return lt_zstd_between(d, LT_AHEAD_OUT_MAX);
}

static void adopt_frames(struct lt_decoder *d, lt_ahead *a)
{
	(void)d;
	(void)a;
}

static void take_frames(struct lt_decoder *d, lt_ahead *a, u8 *out,
			size_t nbytes)
{
	(void)d;
	memcpy(out, ((struct frames *)a->work)->bytes + a->n_taken, nbytes);
}

static void pass_frames(struct lt_decoder *d, const lt_ahead *a)
{
	d->n_members += a->n_members;
}

const struct lt_ahead_ops lt_ahead_zstd = {
	.can = zstd_can,
	.new_work = new_frames,
	.free_work = free_frames,
	.find = find_frame,
	.decode = decode_frames,
	.stands = stands_between,
	.adopt = adopt_frames,
	.take = take_frames,
	.pass = pass_frames,
};
