/*
 * lt_cursor.h: where a decoder stands between its input and its output.
 *
 * Each function that decodes moves the cursor by what it took and what it
 * made.  Neither pointer is NULL, even where nothing is left of its side.
 */
#ifndef LT_CURSOR_H
#define LT_CURSOR_H

#include "lt_common.h"

struct lt_cursor {
	const u8 *in;
	size_t in_nbytes;
	u8 *out;
	size_t out_nbytes;
	u64 in_pos;		/* offset of 'in' in the stream */
};

/* 'nbytes' bytes of input were taken. */
static inline void lt_cursor_skip(struct lt_cursor *c, size_t nbytes)
{
	c->in += nbytes;
	c->in_nbytes -= nbytes;
	c->in_pos += nbytes;
}

/* 'nbytes' bytes were written to 'out'. */
static inline void lt_cursor_made(struct lt_cursor *c, size_t nbytes)
{
	c->out += nbytes;
	c->out_nbytes -= nbytes;
}

#endif
