/*
 * lt_deflate.h: the blocks of raw deflate (RFC 1951): headers, and tables that
 * decode the codes which a header describes.
 *
 * It decodes no symbol of a block's body: that is for a loop that takes the
 * same bits and these tables.  Input may be cut anywhere.
 *
 *	lt_deflate_reset(d);		a stream begins
 *	lt_deflate_header(d, bits);	until LT_DEFLATE_BODY: a block begins
 *
 * What is accepted is what zlib accepts, and an error is known at the bit at
 * which zlib knows it.
 */
#ifndef LT_DEFLATE_H
#define LT_DEFLATE_H

#include "lt_common.h"

/* A positive enum lt_status of this header alone. */
enum { LT_DEFLATE_BODY = 1 };

/* --- Bits ------------------------------------------------------------------ */

/* The next bits of a stream, the first of them lowest; above the 'n' that are
 * there, 'buf' is zero.  Then come the bytes from 'in' to 'end'. */
struct lt_bits {
	u64 buf;
	u32 n;
	const u8 *in, *end;
};

/* Have 'n' bits, at most 56; false: the input ends before.  Takes no byte that
 * is not needed for them. */
static inline bool lt_bits_need(struct lt_bits *b, u32 n)
{
	while (b->n < n) {
		if (b->in == b->end)
			return false;
		b->buf |= (u64)*b->in++ << b->n;
		b->n += 8;
	}
	return true;
}

static inline void lt_bits_drop(struct lt_bits *b, u32 n)
{
	b->buf >>= n;
	b->n -= n;
}

static inline u32 lt_bits_take(struct lt_bits *b, u32 n)
{
	const u32 bits = (u32)(b->buf & (((u64)1 << n) - 1));

	lt_bits_drop(b, n);
	return bits;
}

/* Go back by the whole bytes that are there, but not to before 'from'. */
static inline void lt_bits_give_back(struct lt_bits *b, const u8 *from)
{
	const size_t nbytes = lt_min(b->n / 8, (size_t)(b->in - from));

	b->in -= nbytes;
	b->n -= 8 * (u32)nbytes;
	b->buf &= ((u64)1 << b->n) - 1;
}

/* 8 bytes, the first lowest. */
static inline u64 lt_load64(const u8 *p)
{
	u64 v;

	memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

/* --- Tables ---------------------------------------------------------------- */

/*
 * One array of entries has all tables of a block.  First come those that the
 * next 9 bits index, for a distance; then those for the next 11 bits, for a
 * literal or length; then sub-tables for codes that are longer.  In this order
 * an index of 11 bits may be looked up in either table before it is known
 * which one it is for.
 *
 * An entry says in its
 *
 *	bits 0-7	how many bits it takes, extra bits included
 *	bits 8-15	how many bits index the table that comes next
 *	bits 16-23	how many of its bits come before its extra bits
 *	bits 24-25	how many literals there are
 *	bit 29		LT_CODE_END: end of block
 *	bit 30		LT_CODE_OTHER: no code at all, if it takes any bits; else
 *			the rest is in a sub-table: bits 16-23 are the number of
 *			bits that index it, bits 32-47 where in the array it is
 *	bit 31		LT_CODE_MATCH: a length; after its literal, if it has one
 *	bits 32-47	the literals, the first lowest
 *	bits 48-63	the length before extra bits are added
 *
 * and one for a distance, instead of the last two, in bits 32-63 the distance
 * before extra bits are added.  The first two bytes are what the instruction
 * BEXTR takes to find the next index; an entry of which the low half is below
 * LT_CODE_END is literals and nothing else.
 */
#define LT_DIST_BITS	9
#define LT_LITLEN_BITS	11
#define LT_CODE_SHIFT	16
#define LT_CODE_COUNT	24
#define LT_CODE_END	((u32)1 << 29)
#define LT_CODE_OTHER	((u32)1 << 30)
#define LT_CODE_MATCH	((u32)1 << 31)

#define LT_DIST_AT	0
#define LT_LITLEN_AT	(1 << LT_DIST_BITS)
#define LT_SUB_AT	(LT_LITLEN_AT + (1 << LT_LITLEN_BITS))
/*
 * Sub-tables are as small as their codes allow.  The most entries that a
 * complete set of codes of up to 15 bits can need, by enumeration of all sets
 * (zlib's examples/enough.c): 2342 for 288 symbols by 11 bits, 594 for 32 by 9.
 */
#define LT_TABLES_SIZE	(LT_SUB_AT + (2342 - (1 << LT_LITLEN_BITS)) + \
			 (594 - (1 << LT_DIST_BITS)))

#define LT_N_LITLEN	288
#define LT_N_DIST	32
#define LT_N_PRECODE	19
/* Distances are at most this. */
#define LT_DEFLATE_WINDOW	((size_t)32 << 10)

enum lt_deflate_at {			/* what is read next */
	LT_AT_BLOCK,			/* its first three bits */
	LT_AT_STORED_LENGTH,
	LT_AT_COUNTS,
	LT_AT_PRECODE,
	LT_AT_LENGTHS,
	LT_AT_BODY,
};

enum lt_deflate_kind {			/* RFC 1951 §3.2.3 */
	LT_BLOCK_STORED,
	LT_BLOCK_FIXED,
	LT_BLOCK_DYNAMIC,
};

struct lt_deflate {
	u8 at;				/* enum lt_deflate_at */
	u8 kind;			/* enum lt_deflate_kind */
	bool final;			/* no block follows this one */
	bool paired;			/* the tables at hand have pairs */
	bool pairs_pay;			/* those to come shall */
	bool fixed_built;
	u16 n_litlen, n_dist, n_precode;	/* codes that the header has */
	u16 have;			/* lengths read of those it has now */
	u32 stored_nbytes;		/* of the body of a stored block */
	const u64 *tables;		/* of any other */
	/* Of a dynamic block, in bits; 0: the symbol has none.  As they come:
	 * those of distances follow at 'n_litlen'. */
	u8 lens[LT_N_LITLEN + LT_N_DIST];
	u8 precode_lens[LT_N_PRECODE];
	u16 precode[1 << 7];		/* symbol << 8 | bits */
	u64 dynamic[LT_TABLES_SIZE];
	/* Made once: a block of fixed codes can be of ten bits. */
	u64 fixed[LT_TABLES_SIZE];
};

/* Set up what is never set up again, in memory that is zero. */
void lt_deflate_reset(struct lt_deflate *d);

/*
 * Read on: LT_OK where the input ends before the header does, LT_DEFLATE_BODY
 * or LT_ERR_DATA.  When a body begins, less than 8 bits are held of what it
 * begins with.  After the body, set 'at' to LT_AT_BLOCK.
 */
int lt_deflate_header(struct lt_deflate *d, struct lt_bits *b);

/*
 * The block has shown that it is long: from here on, its tables have pairs of
 * symbols in one entry where both codes fit the index, and those of the blocks
 * that follow have them at once, until the loop clears 'pairs_pay' as one
 * was short.  Pairs are a tenth of all look-ups on OS layers and 3-5 % of the
 * time, but tables that have them take twice as long to build.  Of a pair,
 * 'lens' has the length of the first code, which its entry has not.
 */
void lt_deflate_pair(struct lt_deflate *d);

/*
 * The fields of a header that was read before, from 'at' to 'precode_lens' but
 * for those that say what was built, are there again, and may be anything:
 * build what follows from them.  LT_ERR_DATA: they are no state that reading a
 * header leads to, and only lt_deflate_reset is allowed.
 */
int lt_deflate_resume(struct lt_deflate *d);

#endif
