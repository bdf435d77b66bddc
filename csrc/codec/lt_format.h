/*
 * lt_format.h: what a format is to the codec: one table of operations.
 *
 * A format lives in a file of its own (lt_stored.c, lt_gzip.c, lt_zstd.c) and
 * is known to lt_codec.c by its line in the table of formats, nowhere else.
 * Every operation is there in every format.
 *
 * Its 'step' works on a cursor until input or output room runs out and decides
 * everything in byte order of the stream, so that a verdict cannot depend on
 * how the bytes were cut.  What all formats share, the output budget and the
 * sticky status, is lt_codec.c's.
 */
#ifndef LT_FORMAT_H
#define LT_FORMAT_H

#include "codec/ahead/lt_ahead.h"
#include "codec/lt_cursor.h"
#include "lt_api_c.h"

/* First in the struct of each format's decoder.  A part is a gzip member, a
 * zstd frame or, of a stored stream, all of it. */
struct lt_decoder {
	u64 part_pos;		/* where the open part begins */
	u64 out_pos;		/* same, of the one that made the last output */
	u64 error_pos;		/* valid after a negative verdict */
	u64 n_members;		/* parts that are complete */
	u64 window;		/* that the open part asks for; only zstd has one */
};

struct lt_format_options {
	bool check_crc;
	bool grant_all;		/* never return LT_WINDOW_WAIT */
	u64 window_max;
};

struct lt_format_ops {
	/* NULL: no memory. */
	struct lt_decoder *(*new)(void);
	void (*free)(struct lt_decoder *d);
	/* A new stream begins, whatever became of the last. */
	int (*reset)(struct lt_decoder *d, const struct lt_format_options *o);
	/* LT_OK when it needs input or output room, LT_WINDOW_WAIT, or a
	 * negative verdict, after which the decoder is only reset or freed. */
	int (*step)(struct lt_decoder *d, struct lt_cursor *io);
	/* The input has ended and step has nothing left to say. */
	int (*finish)(struct lt_decoder *d, u64 in_total);
	/* What lt_codec_grant_window and lt_codec_trim promise. */
	void (*grant_window)(struct lt_decoder *d);
	void (*trim)(struct lt_decoder *d);
	/* NULL: its streams are not decoded by pieces. */
	const struct lt_ahead_ops *ahead;
};

/* The operations of an enum lt_format; NULL: no such format. */
const struct lt_format_ops *lt_format_ops(int format);

extern const struct lt_format_ops lt_format_stored;
extern const struct lt_format_ops lt_format_gzip;
extern const struct lt_format_ops lt_format_zstd;

/* The verdict 'status' on the open part. */
static inline int lt_decoder_fail(struct lt_decoder *d, int status)
{
	d->error_pos = d->part_pos;
	return status;
}

/* Of bytes that begin no part, where one could begin. */
static inline int lt_decoder_no_beginning(const struct lt_decoder *d)
{
	return d->n_members ? LT_ERR_TRAILING : LT_ERR_HEADER;
}

/* For grant_window and trim of a format that has no window. */
static inline void lt_decoder_no_window(struct lt_decoder *d)
{
	(void)d;
}

#endif
