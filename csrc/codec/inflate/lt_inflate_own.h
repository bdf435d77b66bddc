/*
 * lt_inflate_own.h: the state of the inflater of our own, for the file that
 * decodes (lt_inflate_own.c) and the one that freezes (lt_inflate_frozen.c).
 */
#ifndef LT_INFLATE_OWN_H
#define LT_INFLATE_OWN_H

#include "codec/inflate/lt_deflate.h"
#include "codec/inflate/lt_inflate.h"

#define LT_OWN_WINDOW	LT_DEFLATE_WINDOW
/* The least room that the fast loop works in: see lt_inflate_loop.h. */
#define LT_OWN_MARGIN	320
#define LT_OWN_MATCH_MAX	258

struct span;			/* where output goes: lt_inflate_own.c */

typedef int lt_own_loop(const u64 *tables, struct lt_bits *b,
			struct span *s, const u8 *in_end);

enum lt_own_symbol {		/* what is read next of a block's body */
	LT_OWN_LITLEN,
	LT_OWN_DIST,
	LT_OWN_MATCH,		/* nothing: one is being copied */
};

struct lt_own {
	struct lt_inflate base;
	lt_own_loop *fast;
	u64 buf;		/* between two calls: of struct lt_bits */
	u32 n;
	u8 symbol;		/* enum lt_own_symbol */
	u16 length;		/* of the match: what is left of it */
	u16 distance;
	u32 body_nbytes;	/* of the block, as far as it matters */
	u32 pos;		/* where in 'own' the last output ends */
	struct lt_deflate deflate;
	/* Room for the loop to work in, and for its margin. */
	u8 own[2 * LT_OWN_WINDOW + LT_OWN_MARGIN];
};

/* Entries of struct lt_inflater. */
void lt_own_reset(struct lt_inflate *base);

size_t lt_own_freeze(const struct lt_inflate *base,
		     u8 p[LT_INFLATE_FROZEN_MAX]);
int lt_own_thaw(struct lt_inflate *base, const u8 *p, size_t nbytes);

#endif
