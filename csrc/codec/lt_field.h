/*
 * lt_field.h: a field of fixed size that may arrive in pieces.
 *
 * Input may be cut anywhere, so nothing is peeked at: what has arrived of a
 * field waits in 'bytes' until it is whole.
 */
#ifndef LT_FIELD_H
#define LT_FIELD_H

#include "codec/lt_cursor.h"

/* The longest is a zstd frame header with its magic: RFC 8878 §3.1.1.1. */
#define LT_FIELD_NBYTES_MAX 18

struct lt_field {
	size_t fill;
	u8 bytes[LT_FIELD_NBYTES_MAX];
};

/* Fill up to 'nbytes' bytes, those that are there already included; true once
 * the field is whole. */
static inline bool lt_field_collect(struct lt_field *f, struct lt_cursor *io,
				    size_t nbytes)
{
	const size_t n = lt_min(nbytes - f->fill, io->in_nbytes);

	memcpy(f->bytes + f->fill, io->in, n);
	f->fill += n;
	lt_cursor_skip(io, n);
	return f->fill == nbytes;
}

#endif
