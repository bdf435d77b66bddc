/*
 * lt_stored.c: a stream that is stored as it is.  Any end is a good end.
 */
#include "codec/lt_format.h"

static struct lt_decoder *stored_new(void)
{
	return calloc(1, sizeof(struct lt_decoder));
}

static void stored_free(struct lt_decoder *d)
{
	free(d);
}

static int stored_reset(struct lt_decoder *d, const struct lt_format_options *o)
{
	(void)o;
	memset(d, 0, sizeof(*d));
	return LT_OK;
}

static int stored_step(struct lt_decoder *d, struct lt_cursor *io)
{
	const size_t n = lt_min(io->in_nbytes, io->out_nbytes);

	if (n) {
		memcpy(io->out, io->in, n);
		lt_cursor_skip(io, n);
		lt_cursor_made(io, n);
		d->n_members = 1;
	}
	return LT_OK;
}

static int stored_finish(struct lt_decoder *d, u64 in_total)
{
	(void)d;
	(void)in_total;
	return LT_OK;
}

const struct lt_format_ops lt_format_stored = {
	.new = stored_new,
	.free = stored_free,
	.reset = stored_reset,
	.step = stored_step,
	.finish = stored_finish,
	.grant_window = lt_decoder_no_window,
	.trim = lt_decoder_no_window,
};
