/*
 * lt_deflate_tables.c: the tables of a block's codes (RFC 1951 §3.2.2).
 *
 * No input may cost much: a block without a body is of ten bits with fixed
 * codes and of about eleven bytes with others, and there may be millions.  So
 * the fixed tables are made once, and a table is made by doubling: the codes
 * of n bits are put into a table of 2^n entries, which is then copied behind
 * itself.  That writes each entry about twice and in sequence, where one entry
 * after the other with all its repetitions writes all over the table.
 */
#include "codec/inflate/lt_deflate_tables.h"
#include "lt_api_c.h"

/* Entries but for the code's own bits, by symbol.  Multiplied by a number of
 * bits, CODE_BIT adds it to both places that count them. */
#define CODE_BIT	((u64)1 << LT_CODE_SHIFT | 1)
#define NEXT(bits)	((u64)(bits) << 8)
#define LITERAL(n)	(NEXT(LT_LITLEN_BITS) | (u64)1 << LT_CODE_COUNT | \
			 (u64)(n) << 32)
#define LITERAL4(n)	LITERAL(n), LITERAL((n) + 1), LITERAL((n) + 2), \
			LITERAL((n) + 3)
#define LITERAL16(n)	LITERAL4(n), LITERAL4((n) + 4), LITERAL4((n) + 8), \
			LITERAL4((n) + 12)
#define LITERAL64(n)	LITERAL16(n), LITERAL16((n) + 16), \
			LITERAL16((n) + 32), LITERAL16((n) + 48)
#define LENGTH(base, extra)	(NEXT(LT_DIST_BITS) | LT_CODE_MATCH | \
				 (u64)(base) << 48 | (extra))
#define DIST(base, extra)	(NEXT(LT_LITLEN_BITS) | (u64)(base) << 32 | \
				 (extra))
#define DIST2(base, extra)	DIST(base, extra), \
				DIST((base) + (1 << (extra)), extra)
#define INVALID		((u64)LT_CODE_OTHER)

static const u64 litlen_entries[LT_N_LITLEN] = {
	LITERAL64(0), LITERAL64(64), LITERAL64(128), LITERAL64(192),
	LT_CODE_END,
	LENGTH(3, 0), LENGTH(4, 0), LENGTH(5, 0), LENGTH(6, 0),
	LENGTH(7, 0), LENGTH(8, 0), LENGTH(9, 0), LENGTH(10, 0),
	LENGTH(11, 1), LENGTH(13, 1), LENGTH(15, 1), LENGTH(17, 1),
	LENGTH(19, 2), LENGTH(23, 2), LENGTH(27, 2), LENGTH(31, 2),
	LENGTH(35, 3), LENGTH(43, 3), LENGTH(51, 3), LENGTH(59, 3),
	LENGTH(67, 4), LENGTH(83, 4), LENGTH(99, 4), LENGTH(115, 4),
	LENGTH(131, 5), LENGTH(163, 5), LENGTH(195, 5), LENGTH(227, 5),
	LENGTH(258, 0), INVALID, INVALID,
};

static const u64 dist_entries[LT_N_DIST] = {
	DIST2(1, 0), DIST2(3, 0), DIST2(5, 1), DIST2(9, 2), DIST2(17, 3),
	DIST2(33, 4), DIST2(65, 5), DIST2(129, 6), DIST2(257, 7),
	DIST2(513, 8), DIST2(1025, 9), DIST2(2049, 10), DIST2(4097, 11),
	DIST2(8193, 12), DIST2(16385, 13), INVALID, INVALID,
};

/* --- Codes --------------------------------------------------------------- */

/* The symbols that have a code, by its length, then by number. */
struct sorted {
	u32 longest;			/* 0: there is none */
	bool complete;			/* no pattern of bits is unused */
	u16 n_of[LT_CODE_BITS_MAX + 1];
	u16 symbols[LT_N_LITLEN];
};

#define N_PARTS	4

/*
 * Sort symbols by the lengths of their codes, LT_ERR_DATA if these make no
 * prefix code.  'n_symbols' is a multiple of N_PARTS: each part is counted and
 * sorted apart, as the CPU then need not wait for one count to add to the next.
 */
static int sort(struct sorted *s, const u8 *lens, u32 n_symbols)
{
	u16 at[N_PARTS][LT_CODE_BITS_MAX + 1];
	const u32 part = n_symbols / N_PARTS;
	u32 n = 0;
	int unused = 1;			/* patterns of the length at hand */

	memset(at, 0, sizeof(at));
	for (u32 i = 0; i < part; i++)
		for (u32 k = 0; k < N_PARTS; k++)
			at[k][lens[k * part + i]]++;
	s->longest = 0;
	for (u32 bits = 1; bits <= LT_CODE_BITS_MAX; bits++) {
		const u32 before = n;

		for (u32 k = 0; k < N_PARTS; k++) {
			const u16 count = at[k][bits];

			at[k][bits] = (u16)n;
			n += count;
		}
		s->n_of[bits] = (u16)(n - before);
		unused = 2 * unused - (int)(n - before);
		if (unused < 0)
			return LT_ERR_DATA;
		if (n != before)
			s->longest = bits;
	}
	s->complete = unused == 0;
	for (u32 i = 0; i < part; i++) {
		for (u32 k = 0; k < N_PARTS; k++) {
			const u32 symbol = k * part + i;

			if (lens[symbol])
				s->symbols[at[k][lens[symbol]]++] = (u16)symbol;
		}
	}
	return LT_OK;
}

/* The code that follows 'code' among those of 'bits' bits, with all codes
 * written from their last bit to their first, as they are read. */
static u32 next_code(u32 code, u32 bits)
{
	const u32 zeros = ~code & ((1u << bits) - 1);
	u32 top;

	if (!zeros)
		return 0;		/* that was the last */
	top = 31 - (u32)__builtin_clz(zeros);
	return (code & ((1u << top) - 1)) | 1u << top;
}

/*
 * Sub-tables for the codes above 'index_bits', of which the first is 'code' and
 * its symbol symbols[i].  They begin at 'sub' of 'tables'; returns where they
 * end.
 */
static u32 build_long(u64 *tables, u64 *table, u32 index_bits, u32 sub,
		      const struct sorted *s, u32 i, u32 code,
		      const u64 *entries)
{
	const u32 mask = (1u << index_bits) - 1;
	u32 prefix = ~0u, size = 0;

	for (u32 bits = index_bits + 1; bits <= s->longest; bits++) {
		for (u32 left = s->n_of[bits]; left; left--) {
			const u64 entry = entries[s->symbols[i++]] +
					  bits * CODE_BIT;

			if ((code & mask) != prefix) {
				/* As large as the codes that are left can
				 * fill it. */
				u32 width = bits - index_bits;
				u32 room = 1u << width, n = left;

				while (n < room &&
				       index_bits + width < s->longest) {
					room -= n;
					width++;
					room <<= 1;
					n = s->n_of[index_bits + width];
				}
				sub += size;
				size = 1u << width;
				prefix = code & mask;
				table[prefix] = LT_CODE_OTHER |
						(u64)width << LT_CODE_SHIFT |
						(u64)sub << 32;
			}
			for (u32 k = code >> index_bits; k < size;
			     k += 1u << (bits - index_bits))
				tables[sub + k] = entry;
			code = next_code(code, bits);
		}
	}
	return sub + size;
}

/* What pairs are made of, in the order of struct sorted. */
struct parts {
	u16 codes[LT_N_LITLEN];
	u64 seconds[LT_N_LITLEN];	/* 0: the end of the block; no pair */
	u16 n_literals_of[LT_CODE_BITS_MAX + 1];
};

/* As the second of a pair: the literal is one byte further up. */
static u64 as_second(u64 entry)
{
	const u64 literal = (u64)0xff << 32;

	if (entry & (LT_CODE_END | LT_CODE_OTHER))
		return 0;
	return (entry & ~literal) | (entry & literal) << 8;
}

/* Put into 'table' the pairs of together 'bits' bits.  Codes of one length are
 * in the order of their symbols, literals first. */
static void put_pairs(u64 *table, u32 bits, const struct sorted *s,
		      const struct parts *p)
{
	u32 first_at = 0;

	for (u32 n = 1; n < bits; first_at += s->n_of[n++]) {
		u32 second_at = 0;

		if (!p->n_literals_of[n] || !s->n_of[bits - n])
			continue;
		for (u32 k = 1; k < bits - n; k++)
			second_at += s->n_of[k];
		for (u32 i = 0; i < p->n_literals_of[n]; i++) {
			const u64 first =
				((u64)s->symbols[first_at + i] << 32 |
				 (u64)1 << LT_CODE_COUNT) + n * CODE_BIT;
			const u32 code = p->codes[first_at + i];

			for (u32 k = 0; k < s->n_of[bits - n]; k++) {
				const u64 second = p->seconds[second_at + k];
				const u32 next = p->codes[second_at + k];

				if (second)
					table[code | next << n] =
						first + second;
			}
		}
	}
}

/*
 * The table for 'index_bits' bits at 'at' of 'tables', and its sub-tables from
 * 'sub' on.  Returns where these end.  'pairs': see lt_deflate_pair.
 */
static inline __attribute__((always_inline))
u32 build(u64 *tables, u32 at, u32 index_bits, u32 sub,
	  const struct sorted *s, const u64 *entries, bool pairs)
{
	u64 *const table = tables + at;
	u32 size = 1, code = 0, i = 0;
	struct parts p;

	/* One code of one bit, or none: the other patterns are no code.  They
	 * take one bit. */
	if (!s->complete) {
		table[0] = s->longest ? entries[s->symbols[0]] + CODE_BIT
				      : INVALID + CODE_BIT;
		table[1] = INVALID + CODE_BIT;
		for (size = 2; size < 1u << index_bits; size *= 2)
			memcpy(table + size, table, size * sizeof(*table));
		return sub;
	}
	for (u32 bits = 1; bits <= index_bits; bits++, size *= 2) {
		u32 n_literals = 0;

		/* Before the first code there is nothing to double. */
		if (i)
			memcpy(table + size, table, size * sizeof(*table));
		for (u32 n = s->n_of[bits]; n; n--, i++) {
			const u64 entry = entries[s->symbols[i]] +
					  bits * CODE_BIT;

			table[code] = entry;
			if (pairs) {
				p.codes[i] = (u16)code;
				p.seconds[i] = as_second(entry);
				n_literals += s->symbols[i] < 256;
			}
			code = next_code(code, bits);
		}
		if (pairs) {
			p.n_literals_of[bits] = (u16)n_literals;
			put_pairs(table, bits, s, &p);
		}
	}
	if (s->longest <= index_bits)
		return sub;
	return build_long(tables, table, index_bits, sub, s, i, code, entries);
}

static u32 build_litlen(struct lt_deflate *d, const struct sorted *s)
{
	u64 *const tables = d->dynamic;

	d->paired = d->pairs_pay;
	return d->paired ? build(tables, LT_LITLEN_AT, LT_LITLEN_BITS,
				 LT_SUB_AT, s, litlen_entries, true)
			 : build(tables, LT_LITLEN_AT, LT_LITLEN_BITS,
				 LT_SUB_AT, s, litlen_entries, false);
}

static int sort_litlen(struct sorted *s, const u8 *lens, u32 n_lens)
{
	u8 all[LT_N_LITLEN];

	memcpy(all, lens, n_lens);
	memset(all + n_lens, 0, sizeof(all) - n_lens);
	if (sort(s, all, LT_N_LITLEN) != LT_OK ||
	    (!s->complete && s->longest != 1))
		return LT_ERR_DATA;
	return LT_OK;
}

static int build_dist(u64 *tables, u32 sub, const u8 *lens, u32 n_lens)
{
	u8 all[LT_N_DIST] = {0};
	struct sorted s;

	memcpy(all, lens, n_lens);
	if (sort(&s, all, LT_N_DIST) != LT_OK ||
	    (!s.complete && s.longest > 1))
		return LT_ERR_DATA;
	build(tables, LT_DIST_AT, LT_DIST_BITS, sub, &s, dist_entries, false);
	return LT_OK;
}

int lt_deflate_build_dynamic(struct lt_deflate *d)
{
	struct sorted s;

	/* Where no block could end, zlib says so before all else. */
	if (!d->lens[256] || sort_litlen(&s, d->lens, d->n_litlen) != LT_OK)
		return LT_ERR_DATA;
	d->tables = d->dynamic;
	return build_dist(d->dynamic, build_litlen(d, &s),
			  d->lens + d->n_litlen, d->n_dist);
}

void lt_deflate_pair(struct lt_deflate *d)
{
	struct sorted s;

	d->pairs_pay = true;
	if (d->kind != LT_BLOCK_DYNAMIC || d->paired)
		return;
	/* Its sub-tables come to lie where they are. */
	sort_litlen(&s, d->lens, d->n_litlen);
	build_litlen(d, &s);
}

/* RFC 1951 §3.2.6. */
void lt_deflate_use_fixed(struct lt_deflate *d)
{
	u8 lens[LT_N_LITLEN];
	struct sorted s;

	d->tables = d->fixed;
	if (d->fixed_built)
		return;
	memset(lens, 8, 144);
	memset(lens + 144, 9, 256 - 144);
	memset(lens + 256, 7, 280 - 256);
	memset(lens + 280, 8, LT_N_LITLEN - 280);
	sort_litlen(&s, lens, LT_N_LITLEN);
	build(d->fixed, LT_LITLEN_AT, LT_LITLEN_BITS, LT_SUB_AT, &s,
	      litlen_entries, false);
	memset(lens, 5, LT_N_DIST);
	build_dist(d->fixed, LT_SUB_AT, lens, LT_N_DIST);
	d->fixed_built = true;
}

int lt_deflate_build_precode(struct lt_deflate *d)
{
	u8 lens[LT_N_PRECODE + 1] = {0};	/* a multiple of N_PARTS */
	struct sorted s;
	u32 size = 1, code = 0, i = 0;

	memcpy(lens, d->precode_lens, LT_N_PRECODE);
	if (sort(&s, lens, sizeof(lens)) != LT_OK)
		return LT_ERR_DATA;
	if (!s.longest) {
		/* As zlib has it: each bit says that a symbol has no code, so
		 * that in the end the end of the block has none. */
		for (u32 k = 0; k < 1 << LT_PRECODE_BITS; k++)
			d->precode[k] = 1;
		return LT_OK;
	}
	if (!s.complete)
		return LT_ERR_DATA;
	for (u32 bits = 1; bits <= LT_PRECODE_BITS; bits++) {
		memcpy(d->precode + size, d->precode,
		       size * sizeof(*d->precode));
		size <<= 1;
		for (u32 n = s.n_of[bits]; n; n--) {
			d->precode[code] =
				(u16)((u32)s.symbols[i++] << 8 | bits);
			code = next_code(code, bits);
		}
	}
	return LT_OK;
}
