/*
 * lt_ahead_deflate.c: blocks of a gzip member, decoded before their turn.
 *
 * A compressor that flushes ends a run of blocks with an empty stored block:
 * 00 00 ff ff, behind which the next block begins at a byte.  podman, pigz and
 * all who compress on several cores do it every 128 KiB to 1 MiB, and keep the
 * window: matches reach back over the marker.  So what is decoded from there
 * are symbols of 16 bits: a byte, or, for a byte that a match takes from before
 * the marker, its place in the window, which is not known yet.
 *
 * In front of the symbols stand those of the window's own places, so that a
 * match that begins there needs no special treatment: it copies them.  When the
 * window is known, each symbol is looked up.
 */
#define _GNU_SOURCE		/* memmem */
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "codec/inflate/lt_deflate.h"
#include "codec/inflate/lt_inflate.h"
#include "codec/lt_format.h"
#include "codec/lt_gzip.h"
#include "cpu/lt_cpu.h"

#define WINDOW	LT_DEFLATE_WINDOW
#define UNKNOWN	0x8000u			/* | place in the window */
/* What may be written past the room: two literals twice and a match, copied by
 * sixteen symbols. */
#define SLACK	(4 + 258 + 15)
/* Input after which a block counts as long: see lt_deflate_pair. */
#define PAIR_AFTER_NBYTES	256

struct span;
typedef int fast_loop(const u64 *tables, struct lt_bits *b, struct span *s,
		      const u8 *in_end);

struct symbols {
	fast_loop *fast;
	struct lt_deflate deflate;
	u8 byte_of[1 << 16];		/* by symbol, once the window is known */
	/* UNKNOWN | 0, 1, 2 ... of the window, then what was decoded. */
	u16 at[WINDOW + LT_AHEAD_OUT_MAX + SLACK];
};

static bool find_marker(const u8 *in, size_t nbytes, size_t from,
			size_t *at_ret)
{
	static const u8 marker[4] = {0x00, 0x00, 0xff, 0xff};
	const u8 *at = memmem(in + from, nbytes - from, marker, sizeof(marker));

	if (at)
		*at_ret = (size_t)(at - in) + sizeof(marker);
	return at;
}

/* --- Decoding --------------------------------------------------------------- */

/* Where symbols go, as the fast loop has it: 'begin' is the window's. */
struct span {
	const u16 *begin;
	u16 *out;
	u16 *end;
	const u16 *enough;
};

static inline void copy16(u16 *to, const u16 *from)
{
	struct { u64 a, b; } v;

	memcpy(&v, from, sizeof(v));
	memcpy(to, &v, sizeof(v));
}

static inline void put_literals(u16 *out, u64 entry)
{
	u32 two = (u32)(entry >> 32 & 0xffff);

	two = (two | two << 8) & 0xff00ff;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	two = two << 16 | two >> 16;
#endif
	memcpy(out, &two, sizeof(two));
}

static inline void copy_repeated(u16 *to, const u16 *end, size_t distance)
{
	do {
		*to = *(to - distance);
	} while (++to < end);
}

#define LOOP_UNIT	u16
#define LOOP_IN_MARGIN	32
#define LOOP_OUT_MARGIN	SLACK
#include "codec/inflate/lt_inflate_loops.h"

static fast_loop *fast_of_this_cpu(void)
{
#if defined(__x86_64__)
	if (lt_cpu_has_bmi2())
		return fast_bmi2;
#endif
	return fast_portable;
}

static void *new_symbols(void)
{
	struct symbols *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fast = fast_of_this_cpu();
	for (u32 i = 0; i < 256; i++)
		s->byte_of[i] = (u8)i;
	for (u32 i = 0; i < WINDOW; i++)
		s->at[i] = (u16)(UNKNOWN | i);
	return s;
}

/* The entry of what comes next; false: the input ends before. */
static bool look_up(const u64 *tables, struct lt_bits *b, u32 at, u32 index_bits,
		    u64 *entry_ret)
{
	do {
		u64 entry = tables[at + (b->buf & ((1u << index_bits) - 1))];

		if (entry & LT_CODE_OTHER && !(entry & 0xff)) {
			const u32 width = entry >> LT_CODE_SHIFT & 0xff;

			entry = tables[(entry >> 32 & 0xffff) +
				       (b->buf >> index_bits &
					((1u << width) - 1))];
		}
		if ((entry & 0xff) <= b->n) {
			*entry_ret = entry;
			return !(entry & LT_CODE_OTHER);
		}
	} while (lt_bits_need(b, b->n + 1));
	return false;
}

/* The bits of an entry from 'base' on, with its extra bits added. */
static u32 take_value(struct lt_bits *b, u64 entry, u32 base)
{
	const u32 n_code = entry >> LT_CODE_SHIFT & 0xff;
	const u32 n_extra = (entry & 0xff) - n_code;

	lt_bits_drop(b, n_code);
	return (u32)(entry >> base) + lt_bits_take(b, n_extra);
}

/* Where the fast loop has no margin: LT_OK, LT_DEFLATE_BODY, or LT_ERR_DATA for
 * bad codes and for an end of input or room. */
static int one_symbol(const u64 *tables, struct lt_bits *b, struct span *s)
{
	u64 entry;
	u32 len, distance;

	if (s->out > s->enough ||
	    !look_up(tables, b, LT_LITLEN_AT, LT_LITLEN_BITS, &entry))
		return LT_ERR_DATA;
	if (entry & LT_CODE_END) {
		lt_bits_drop(b, entry & 0xff);
		return LT_DEFLATE_BODY;
	}
	put_literals(s->out, entry);
	s->out += entry >> LT_CODE_COUNT & 3;
	if (!(entry & LT_CODE_MATCH)) {
		lt_bits_drop(b, entry & 0xff);
		return LT_OK;
	}
	len = (u16)take_value(b, entry, 48);
	if (!look_up(tables, b, LT_DIST_AT, LT_DIST_BITS, &entry))
		return LT_ERR_DATA;
	distance = take_value(b, entry, 32);
	for (; len; len--, s->out++)
		*s->out = *(s->out - distance);
	return LT_OK;
}

static int decode_block(struct symbols *w, struct lt_bits *b, struct span *s)
{
	struct lt_deflate *d = &w->deflate;
	const size_t first = PAIR_AFTER_NBYTES + LOOP_IN_MARGIN;
	const u8 *const from = b->in, *in_end = b->end;
	int ret = LT_OK;

	if (!d->paired && first < (size_t)(b->end - b->in))
		in_end = from + first;
	while (ret == LT_OK) {
		if (s->out <= s->enough && b->end - b->in >= LOOP_IN_MARGIN) {
			ret = w->fast(d->tables, b, s, in_end);
			if (ret == LT_OK)
				lt_deflate_pair(d);
			in_end = b->end;
		} else {
			ret = one_symbol(d->tables, b, s);
		}
	}
	if (b->in - from < PAIR_AFTER_NBYTES)
		d->pairs_pay = false;
	return ret;
}

static void decode_blocks(lt_ahead *a, const u8 *in, size_t nbytes)
{
	struct symbols *w = a->work;
	struct lt_deflate *d = &w->deflate;
	struct lt_bits b = {.in = in, .end = in + nbytes};
	u16 *const begin = w->at + WINDOW;
	struct span s = {
		.begin = w->at,
		.out = begin,
		.end = w->at + LT_ARRAY_SIZE(w->at),
		.enough = begin + LT_AHEAD_OUT_MAX,
	};

	lt_deflate_reset(d);
	while (a->out_nbytes < LT_AHEAD_OUT_MAX &&
	       lt_deflate_header(d, &b) == LT_DEFLATE_BODY && !d->final) {
		d->at = LT_AT_BLOCK;
		if (d->kind != LT_BLOCK_STORED) {
			if (decode_block(w, &b, &s) != LT_DEFLATE_BODY ||
			    s.out > s.enough)
				return;
			continue;
		}
		if (d->stored_nbytes > (size_t)(b.end - b.in) ||
		    d->stored_nbytes > (size_t)(s.enough - s.out))
			return;
		for (u32 i = 0; i < d->stored_nbytes; i++)
			*s.out++ = *b.in++;
		if (!d->stored_nbytes) {	/* a marker: a piece may end here */
			a->in_nbytes = (size_t)(b.in - in);
			a->out_nbytes = (size_t)(s.out - begin);
		}
	}
}

/* --- Taking over ------------------------------------------------------------ */

/* Look symbols up.  6 to 16 % of the bytes of OS layers come from the window,
 * and these in runs: most groups have none. */
static void look_up_bytes(const struct symbols *s, const u16 *from, u8 *out,
			  size_t n)
{
#if defined(__SSE2__)
	for (; n >= 16; n -= 16, from += 16, out += 16) {
		const __m128i a = _mm_loadu_si128((const __m128i *)from);
		const __m128i b = _mm_loadu_si128((const __m128i *)(from + 8));

		if (_mm_movemask_epi8(_mm_or_si128(a, b)) & 0xaaaa)
			for (u32 i = 0; i < 16; i++)
				out[i] = s->byte_of[from[i]];
		else
			_mm_storeu_si128((__m128i *)out, _mm_packus_epi16(a, b));
	}
#endif
	while (n--)
		*out++ = s->byte_of[*from++];
}

static bool stands_at_marker(const struct lt_decoder *d, const lt_ahead *a)
{
	const struct lt_inflate *f = lt_gzip_body(d);

	(void)a;
	return f && lt_inflate_stands(f);
}

static void adopt_blocks(struct lt_decoder *d, lt_ahead *a)
{
	struct symbols *s = a->work;

	lt_inflate_window(lt_gzip_body(d), s->byte_of + UNKNOWN);
}

static void take_blocks(struct lt_decoder *d, lt_ahead *a, u8 *out,
			size_t nbytes)
{
	const struct symbols *s = a->work;

	look_up_bytes(s, s->at + WINDOW + a->n_taken, out, nbytes);
	lt_gzip_made(d, out, nbytes);
}

static void pass_blocks(struct lt_decoder *d, const lt_ahead *a)
{
	const struct symbols *s = a->work;
	u8 window[WINDOW];

	/* Of a short piece, the old window is part of the new one. */
	look_up_bytes(s, s->at + a->out_nbytes, window, WINDOW);
	lt_inflate_pass(lt_gzip_body(d), window);
}

const struct lt_ahead_ops lt_ahead_deflate = {
	.can = lt_inflate_can_pass,
	.new_work = new_symbols,
	.free_work = free,
	.find = find_marker,
	.decode = decode_blocks,
	.stands = stands_at_marker,
	.adopt = adopt_blocks,
	.take = take_blocks,
	.pass = pass_blocks,
};
