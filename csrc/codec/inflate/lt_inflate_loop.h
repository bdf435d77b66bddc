/*
 * lt_inflate_loop.h: the fast loop over the body of a block.  A template: it
 * is included by lt_inflate_own.c and, for blocks that are decoded before their
 * turn, by lt_ahead_deflate.c, once for each kind of CPU, with
 *
 *	LOOP_UNIT		what a byte of output is kept in: u8 or u16
 *	struct span, put_literals, copy16, copy_repeated	for such units
 *	LOOP(name)		the name of a function for that CPU
 *	LOOP_TARGET		what that one may use
 *	INDEX(buf, entry)	where in the next table the bits point that
 *				follow those which the entry takes.  More than
 *				its index must not come out.
 *	DIST_INDEX(i), LITLEN_INDEX(i)	the part of INDEX that is for a table
 *	LOW(buf, n)		the low byte of 'n' says how many low bits
 *
 * Time goes into waiting, for the next entry (which is known only when the
 * bits of the last one are off) and after mispredicted branches.  So:
 *
 *  - Both tables are read before it is known which of them comes next, and the
 *    bits are taken off and literals are stored whatever the entry is.  The
 *    branches only say what becomes of it.  4-5 %.
 *  - Where the CPU has BEXTR, it finds the next index with the entry as it is:
 *    one instruction between two look-ups, not two.  7-8 %.
 *  - Two look-ups for each time that bits are read: 4 %.  Three are not better.
 *  - How it is written decides how gcc orders it and what it keeps in registers.
 *    Look-ups before all else that an entry leads to, no second pointer to where
 *    a match goes, and a count of bits that is always clean: 7 %.
 *
 * Tried without gain or at a loss: a match without a branch, overlapping
 * matches by PSHUFB, copies of 48 bytes, tables for 10 or 12 bits.
 *
 * Bits.  A refill leaves 56 to 63 that are counted, and all 64 of 'buf' are
 * real.  Until the next one at most 11 are taken by a look-up of literals, 16
 * by one of a length and 22 by its distance; the 15 that are left are enough to
 * look up what comes next.  Codes that are in sub-tables refill again.
 *
 * Reads.  A round takes 11 + 20 + 28 bits at most, so its refills, and the one
 * before the first round, together go on by 15 bytes, and then read 8.  At the
 * beginning of each round LOOP_IN_MARGIN bytes are behind 'in'.
 *
 * Writes, in units.  A round stores 2 literals twice and a match, in steps of
 * 32 bytes: 4 + 258 + 31 are below LOOP_OUT_MARGIN.
 */

#define REFILL() do {							\
	buf |= lt_load64(in) << (n & 63);				\
	in += (n ^ 63) >> 3;						\
	n |= 56;							\
} while (0)

#define STEP	(16 / sizeof(LOOP_UNIT))

/* 'entry' is what 'buf' begins with: look up what comes next in both tables,
 * take its bits, store its literals. */
#define TAKE() do {							\
	const size_t index_ = INDEX(buf, entry);			\
									\
	saved = buf;							\
	litlen = litlen_table[LITLEN_INDEX(index_)];			\
	dist = dist_table[DIST_INDEX(index_)];				\
	buf >>= entry & 63;						\
	n -= (u8)entry;							\
	put_literals(out, entry);					\
	out += entry >> LT_CODE_COUNT & 3;				\
} while (0)

/* The entry that 'entry' points to, for the bits after the first 'n_bits'. */
#define SUB_ENTRY(entry, n_bits)					\
	tables[((entry) >> 32 & 0xffff) +				\
	       LOW(buf >> (n_bits), (entry) >> LT_CODE_SHIFT)]

/* The value of the entry that was taken from 'saved', from bit 'base' on. */
#define VALUE(entry, base)						\
	(((entry) >> (base)) +						\
	 (LOW(saved, entry) >> ((entry) >> LT_CODE_SHIFT & 63)))

/*
 * Decode until less than a margin is left on either side: LT_OK; or to the end
 * of the block: LT_DEFLATE_BODY; or LT_ERR_DATA.  At least LOOP_IN_MARGIN bytes
 * of input must be there and LOOP_OUT_MARGIN of room.
 */
LOOP_TARGET static int LOOP(fast)(const u64 *tables, struct lt_bits *b,
				  struct span *s, const u8 *in_end)
{
	const u8 *const in_limit = in_end - LOOP_IN_MARGIN;
	const LOOP_UNIT *const out_limit =
		s->enough < s->end - LOOP_OUT_MARGIN ? s->enough
						     : s->end - LOOP_OUT_MARGIN;
	const LOOP_UNIT *const begin = s->begin;
	const u64 *dist_table = tables + LT_DIST_AT;
	const u64 *litlen_table = tables + LT_LITLEN_AT;
	const u8 *const first = b->in;
	const u8 *in = first;
	LOOP_UNIT *out = s->out;
	u64 buf = b->buf, saved, entry, litlen, dist;
	u64 n = b->n;			/* of 'buf', and never above 63 */
	size_t len, distance;
	const LOOP_UNIT *from;
	int ret = LT_OK;

	/* Two pointers: else gcc adds the distance of the tables to each index,
	 * between one look-up and the next. */
	__asm__("" : "+r"(dist_table), "+r"(litlen_table));
	REFILL();
	entry = litlen_table[buf & ((1 << LT_LITLEN_BITS) - 1)];
	do {
		REFILL();
		TAKE();
		if ((u32)entry < LT_CODE_END) {
			entry = litlen;
			TAKE();
			if ((u32)entry < LT_CODE_END) {
				entry = litlen;
				continue;
			}
		}
		if (__builtin_expect(!(entry & LT_CODE_MATCH), 0)) {
			if (entry & LT_CODE_OTHER) {
				if (entry & 0xff)
					goto bad;
				entry = SUB_ENTRY(entry, LT_LITLEN_BITS);
				REFILL();
				TAKE();
				if ((u32)entry < LT_CODE_END) {
					entry = litlen;
					continue;
				}
				REFILL();
			}
			if (entry & LT_CODE_END) {
				ret = LT_DEFLATE_BODY;
				break;
			}
			if (entry & LT_CODE_OTHER)
				goto bad;
		}
		len = VALUE(entry, 48);

		if (__builtin_expect(dist & LT_CODE_OTHER, 0)) {
			if (dist & 0xff)
				goto bad;
			REFILL();
			dist = SUB_ENTRY(dist, LT_DIST_BITS);
		}
		saved = buf;
		entry = litlen_table[LITLEN_INDEX(INDEX(buf, dist))];
		buf >>= dist & 63;
		n -= (u8)dist;
		distance = VALUE(dist, 32);
		if (__builtin_expect((size_t)(out - begin) < distance, 0))
			goto bad;

		from = out - distance;
		if (__builtin_expect(distance >= STEP, 1)) {
			copy16(out, from);
			copy16(out + STEP, from + STEP);
			if (__builtin_expect(len > 2 * STEP, 0)) {
				const LOOP_UNIT *const end = out + len;
				LOOP_UNIT *to = out;

				do {
					to += 2 * STEP;
					from += 2 * STEP;
					copy16(to, from);
					copy16(to + STEP, from + STEP);
				} while (to + 2 * STEP < end);
			}
		} else {
			copy_repeated(out, out + len, distance);
		}
		out += len;
	} while (in <= in_limit && out <= out_limit);

	if (0) {
bad:
		ret = LT_ERR_DATA;
	}
	buf &= ((u64)1 << n) - 1;
	s->out = out;
	*b = (struct lt_bits){.buf = buf, .n = (u32)n, .in = in, .end = b->end};
	lt_bits_give_back(b, first);
	return ret;
}

#undef REFILL
#undef TAKE
#undef STEP
#undef SUB_ENTRY
#undef VALUE
#undef LOOP
#undef LOOP_TARGET
#undef INDEX
#undef DIST_INDEX
#undef LITLEN_INDEX
#undef LOW
