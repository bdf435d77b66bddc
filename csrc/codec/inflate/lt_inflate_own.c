/*
 * lt_inflate_own.c: raw deflate by code of our own.
 *
 * Two loops read a block's symbols: a fast one (lt_inflate_loop.h) for as long
 * as there is a margin of input and of room, and one that decodes symbol by
 * symbol, takes a byte only where a symbol lacks bits, and stops at any byte of
 * input and of output.  So nothing is decoded ahead of the output, nothing is
 * read past the end of a stream, and what is delivered, up to an error or the
 * end of the input, does not depend on how either side was cut.
 *
 * A match reaches back 32 KiB, into output of earlier calls, which belongs to
 * the caller and may be gone.  So the decoder keeps a window of its own.  A
 * call with much room begins in it: its first 32 KiB are decoded there, behind
 * those before, and then copied.  From then on it works in the room itself, and
 * at its end copies the last 32 KiB back.  The loops always have all that a
 * match can reach in one piece, and a distance is too far if it reaches beyond
 * that piece.
 */
#include "codec/inflate/lt_deflate.h"
#include "codec/inflate/lt_inflate.h"
#include "codec/lt_crc32.h"
#include "cpu/lt_cpu.h"
#include "lt_api_c.h"

#define WINDOW		LT_DEFLATE_WINDOW
/* Room for the loop to work in, and for its margin. */
#define OWN_NBYTES	(2 * WINDOW + LOOP_OUT_MARGIN)
/* With less room than this, a call stays in the window: copying that back and
 * forth would be more. */
#define DIRECT_NBYTES	(3 * WINDOW)
#define MATCH_NBYTES_MAX	258

#define LOOP_UNIT	u8
#define LOOP_IN_MARGIN	32
#define LOOP_OUT_MARGIN	320

/* Input after which a block counts as long.  Pairs save 4 % of a block's time
 * and cost as much as 2 KB of output: with blocks of 1 KB of input and a bound
 * of 256 bytes it took 1.25 times as long as without pairs. */
#define PAIR_AFTER_NBYTES	4096

/* Where output goes.  What is between 'begin' and 'out' can be copied from;
 * it is the last 32 KiB, or all there was. */
struct span {
	const u8 *begin;
	u8 *out;
	u8 *end;
	const u8 *enough;	/* once 'out' is here, stop where it is simple */
};

typedef int fast_loop(const u64 *tables, struct lt_bits *b, struct span *s,
		      const u8 *in_end);

enum symbol {			/* what is read next of a block's body */
	LITLEN,
	DIST,
	MATCH,			/* nothing: one is being copied */
};

struct by_own {
	struct lt_inflate base;
	fast_loop *fast;
	u64 buf;		/* between two calls: of struct lt_bits */
	u32 n;
	u8 symbol;		/* enum symbol */
	u16 length;		/* of the match: what is left of it */
	u16 distance;
	u32 body_nbytes;	/* of the block, up to PAIR_AFTER_NBYTES */
	u32 pos;		/* where in 'own' the last output ends */
	struct lt_deflate deflate;
	u8 own[OWN_NBYTES];
};

/* --- Copies -------------------------------------------------------------- */

/* By way of a register: 'to' and 'from' may overlap. */
static inline void copy16(u8 *to, const u8 *from)
{
	struct { u64 a, b; } v;

	memcpy(&v, from, sizeof(v));
	memcpy(to, &v, sizeof(v));
}

/* Two bytes; how many of them count is the caller's business. */
static inline void put_literals(u8 *out, u64 entry)
{
	u16 v = (u16)(entry >> 32);

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap16(v);
#endif
	memcpy(out, &v, sizeof(v));
}

/* A match that overlaps itself, of a distance below 16: repeat what is there
 * until that is 16 bytes or more.  Writes up to 15 bytes past 'end', plus 15
 * past the first 16. */
static inline void copy_repeated(u8 *to, const u8 *end, size_t distance)
{
	while (distance < 16) {
		copy16(to, to - distance);
		to += distance;
		distance *= 2;
	}
	for (; to < end; to += 16)
		copy16(to, to - distance);
}

/* --- Loops --------------------------------------------------------------- */

#include "codec/inflate/lt_inflate_loops.h"

/* As long as there are margins. */
static int run_fast(struct by_own *f, struct lt_bits *b, struct span *s)
{
	struct lt_deflate *d = &f->deflate;
	const u8 *const from = b->in;
	const u8 *in_end = b->end;
	int ret;

	if (d->kind == LT_BLOCK_DYNAMIC && !d->paired) {
		const size_t left = PAIR_AFTER_NBYTES + LOOP_IN_MARGIN -
				    f->body_nbytes;

		if (f->body_nbytes == PAIR_AFTER_NBYTES)
			lt_deflate_pair(d);
		else if (left < (size_t)(in_end - from))
			in_end = from + left;
	}
	ret = f->fast(d->tables, b, s, in_end);
	f->body_nbytes = (u32)lt_min(f->body_nbytes + (size_t)(b->in - from),
				     PAIR_AFTER_NBYTES);
	return ret;
}

/* --- Symbol by symbol ---------------------------------------------------- */

/* Copy of the match what there is room for; true: all of it. */
static bool copy_match(struct by_own *f, struct span *s)
{
	const u32 n = (u32)lt_min(f->length, (size_t)(s->end - s->out));
	const u8 *const from = s->out - f->distance;

	for (u32 i = 0; i < n; i++)
		s->out[i] = from[i];
	s->out += n;
	f->length = (u16)(f->length - n);
	return !f->length;
}

/* The first literal of an entry that has something after it. */
static u64 first_alone(const struct lt_deflate *d, u64 entry)
{
	const u8 literal = (u8)(entry >> 32);

	return (u64)literal << 32 | (u64)1 << LT_CODE_COUNT |
	       d->lens[literal];
}

/* The entry of one symbol that the bits begin with; false: there are too few.
 * Which one it is depends on no bit but those it takes, so an entry is the
 * right one if these are there, though those above are not. */
static bool look_up(const struct lt_deflate *d, struct lt_bits *b, u32 at,
		    u32 index_bits, u64 *entry_ret)
{
	do {
		u64 entry = d->tables[at + (b->buf & ((1u << index_bits) - 1))];

		if (entry & LT_CODE_OTHER && !(entry & 0xff)) {
			const u32 width = entry >> LT_CODE_SHIFT & 0xff;

			entry = d->tables[(entry >> 32 & 0xffff) +
					  (b->buf >> index_bits &
					   ((1u << width) - 1))];
		}
		if (at == LT_LITLEN_AT && entry >> LT_CODE_COUNT & 3 &&
		    entry & (LT_CODE_MATCH | (u32)2 << LT_CODE_COUNT))
			entry = first_alone(d, entry);
		if ((entry & 0xff) <= b->n) {
			*entry_ret = entry;
			return true;
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

enum { STUCK = 0, GOES_ON = 2 };	/* beside LT_DEFLATE_BODY and errors */

static int one_symbol(struct by_own *f, struct lt_bits *b, struct span *s)
{
	const struct lt_deflate *d = &f->deflate;
	u64 entry;

	switch (f->symbol) {
	case LITLEN:
		if (!look_up(d, b, LT_LITLEN_AT, LT_LITLEN_BITS, &entry))
			return STUCK;
		if (entry & LT_CODE_OTHER)
			return LT_ERR_DATA;
		if (entry & LT_CODE_END) {
			lt_bits_drop(b, entry & 0xff);
			return LT_DEFLATE_BODY;
		}
		if (entry & LT_CODE_MATCH) {
			f->length = (u16)take_value(b, entry, 48);
			f->symbol = DIST;
			return GOES_ON;
		}
		if (s->out == s->end)
			return STUCK;
		lt_bits_drop(b, entry & 0xff);
		*s->out++ = (u8)(entry >> 32);
		return GOES_ON;
	case DIST:
		if (!look_up(d, b, LT_DIST_AT, LT_DIST_BITS, &entry))
			return STUCK;
		if (entry & LT_CODE_OTHER)
			return LT_ERR_DATA;
		f->distance = (u16)take_value(b, entry, 32);
		if (f->distance > (size_t)(s->out - s->begin))
			return LT_ERR_DATA;
		f->symbol = MATCH;
		/* fallthrough */
	default:
		if (!copy_match(f, s))
			return STUCK;
		f->symbol = LITLEN;
		return GOES_ON;
	}
}

/* --- Blocks -------------------------------------------------------------- */

/* Both: LT_DEFLATE_BODY at the end of the block, LT_OK where input or room
 * runs out before or 'enough' was made. */
static int body(struct by_own *f, struct lt_bits *b, struct span *s)
{
	int ret;

	do {
		if (f->symbol == LITLEN &&
		    b->end - b->in >= LOOP_IN_MARGIN &&
		    s->end - s->out >= LOOP_OUT_MARGIN) {
			ret = run_fast(f, b, s);
			if (ret == LT_OK)
				ret = GOES_ON;
		} else {
			ret = one_symbol(f, b, s);
		}
	} while (ret == GOES_ON && s->out < s->enough);
	return ret == GOES_ON ? LT_OK : ret;
}

static int stored_body(struct by_own *f, struct lt_bits *b, struct span *s)
{
	struct lt_deflate *d = &f->deflate;
	size_t n = d->stored_nbytes;

	n = lt_min(n, (size_t)(b->end - b->in));
	n = lt_min(n, (size_t)(s->end - s->out));
	memcpy(s->out, b->in, n);
	s->out += n;
	b->in += n;
	d->stored_nbytes -= (u32)n;
	return d->stored_nbytes ? LT_OK : LT_DEFLATE_BODY;
}

/* LT_INFLATE_END; LT_OK as above; or LT_ERR_DATA. */
static int decode(struct by_own *f, struct lt_bits *b, struct span *s)
{
	struct lt_deflate *d = &f->deflate;
	int ret;

	for (;;) {
		if (d->at != LT_AT_BODY) {
			ret = lt_deflate_header(d, b);
			if (ret != LT_DEFLATE_BODY)
				return ret;
			f->body_nbytes = 0;
		}
		ret = d->kind == LT_BLOCK_STORED ? stored_body(f, b, s)
						 : body(f, b, s);
		if (ret != LT_DEFLATE_BODY)
			return ret;
		if (f->body_nbytes < PAIR_AFTER_NBYTES)
			d->pairs_pay = false;
		d->at = LT_AT_BLOCK;
		if (d->final)
			return LT_INFLATE_END;
	}
}

/* --- Where the output goes ----------------------------------------------- */

/* Have room in 'own' for 'nbytes' bytes, at most WINDOW, and the margin. */
static void make_room(struct by_own *f, size_t nbytes)
{
	if (f->pos + nbytes > 2 * WINDOW) {
		memmove(f->own, f->own + f->pos - WINDOW, WINDOW);
		f->pos = WINDOW;
	}
}

/* In 'own', behind what is there, then to the caller.  '*full_ret': 'enough'
 * bytes were made, or as many as 'own' or the caller has room for. */
static int decode_here(struct by_own *f, struct lt_bits *b,
		       struct lt_cursor *io, size_t enough, bool *full_ret)
{
	struct span s = {.begin = f->own};
	u8 *from;
	int ret;

	from = f->own + f->pos;
	s.out = from;
	s.end = from + lt_min(OWN_NBYTES - f->pos, io->out_nbytes);
	s.enough = enough < (size_t)(s.end - from) ? from + enough : s.end;
	ret = decode(f, b, &s);
	memcpy(io->out, from, (size_t)(s.out - from));
	f->pos += (u32)(s.out - from);
	*full_ret = s.out >= s.enough;
	lt_cursor_made(io, (size_t)(s.out - from));
	return ret;
}

/* In the room itself, of which 'begin' to io->out is the last 32 KiB or more,
 * or all that the stream has made. */
static int decode_there(struct by_own *f, struct lt_bits *b,
			struct lt_cursor *io, const u8 *begin)
{
	struct span s = {
		.begin = begin,
		.out = io->out,
		.end = io->out + io->out_nbytes,
		.enough = io->out + io->out_nbytes,
	};
	const int ret = decode(f, b, &s);

	lt_cursor_made(io, (size_t)(s.out - io->out));
	if (ret == LT_OK) {
		const size_t n = lt_min((size_t)(s.out - begin), WINDOW);

		memcpy(f->own, s.out - n, n);
		f->pos = (u32)n;
	}
	return ret;
}

static int own_step(struct lt_inflate *base, struct lt_cursor *io,
		    u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		    size_t *surplus_nbytes_ret)
{
	struct by_own *f = (struct by_own *)base;
	struct lt_bits b = {
		.buf = f->buf,
		.n = f->n,
		.in = io->in,
		.end = io->in + io->in_nbytes,
	};
	const u8 *const begin = io->out;
	const bool much = io->out_nbytes >= DIRECT_NBYTES;
	bool full = true;
	int ret = LT_OK;

	(void)surplus_ret;
	*surplus_nbytes_ret = 0;
	if (!much) {
		do {
			make_room(f, 1);
			ret = decode_here(f, &b, io, SIZE_MAX, &full);
		} while (ret == LT_OK && full && io->out_nbytes);
	} else {
		if (f->pos) {
			make_room(f, WINDOW);
			ret = decode_here(f, &b, io, WINDOW, &full);
		}
		if (ret == LT_OK && full)
			ret = decode_there(f, &b, io, begin);
	}
	f->buf = b.buf;
	f->n = b.n;
	lt_cursor_skip(io, (size_t)(b.in - io->in));
	return ret;
}

/* --- The inflaters ------------------------------------------------------- */

static void own_reset(struct lt_inflate *base)
{
	struct by_own *f = (struct by_own *)base;

	f->buf = 0;
	f->n = 0;
	f->symbol = LITLEN;
	f->pos = 0;
	lt_deflate_reset(&f->deflate);
}

/* --- Pieces -------------------------------------------------------------- */

static bool own_stands(const struct lt_inflate *base)
{
	const struct by_own *f = (const struct by_own *)base;

	return f->deflate.at == LT_AT_BLOCK && !f->deflate.final && !f->n &&
	       f->pos >= WINDOW;
}

static void own_window(const struct lt_inflate *base, u8 *window_ret)
{
	const struct by_own *f = (const struct by_own *)base;

	memcpy(window_ret, f->own + f->pos - WINDOW, WINDOW);
}

static void own_pass(struct lt_inflate *base, const u8 *window)
{
	struct by_own *f = (struct by_own *)base;

	memcpy(f->own, window, WINDOW);
	f->pos = WINDOW;
}

static struct lt_inflate *new_with(fast_loop *fast)
{
	struct by_own *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fast = fast;
	own_reset(&f->base);
	return &f->base;
}

static struct lt_inflate *portable_new(void)
{
	return new_with(fast_portable);
}

static struct lt_inflate *own_new(void)
{
#if defined(__x86_64__)
	if (lt_cpu_has_bmi2())
		return new_with(fast_bmi2);
#endif
	return portable_new();
}

static void own_free(struct lt_inflate *base)
{
	free(base);
}

/* --- Freezing ------------------------------------------------------------ */

/*
 * All numbers with their lowest byte first.  The last number of all is the
 * CRC-32 of what is before it.
 */
enum frozen_at {
	FROZEN_MAGIC = 0,		/* "lti1": the version is in it */
	FROZEN_BITS = 4,		/* struct lt_bits: 'buf', 'n' */
	FROZEN_N_BITS = 12,
	FROZEN_SYMBOL = 13,
	FROZEN_LENGTH = 14,
	FROZEN_DISTANCE = 16,
	FROZEN_AT = 18,			/* struct lt_deflate, as it has them */
	FROZEN_KIND = 19,
	FROZEN_FINAL = 20,
	FROZEN_N_PRECODE = 21,
	FROZEN_N_LITLEN = 22,
	FROZEN_N_DIST = 24,
	FROZEN_HAVE = 26,
	FROZEN_STORED = 28,
	FROZEN_PRECODE_LENS = 32,
	FROZEN_LENS = FROZEN_PRECODE_LENS + LT_N_PRECODE,
	FROZEN_WINDOW_NBYTES = FROZEN_LENS + LT_N_LITLEN + LT_N_DIST,
	FROZEN_WINDOW = FROZEN_WINDOW_NBYTES + 4,
	FROZEN_CRC_NBYTES = 4,
};

static const u8 frozen_magic[4] = {'l', 't', 'i', '1'};
/* Bits that are held between two steps: fewer than the longest field has, which
 * is the length of a stored block with its complement. */
#define FROZEN_N_BITS_MAX	31

_Static_assert(FROZEN_WINDOW + WINDOW + FROZEN_CRC_NBYTES <=
	       LT_INFLATE_FROZEN_MAX, "there must be room for all");

static void put_number(u8 *p, u64 v, u32 nbytes)
{
	for (u32 i = 0; i < nbytes; i++)
		p[i] = (u8)(v >> 8 * i);
}

static u64 number(const u8 *p, u32 nbytes)
{
	u64 v = 0;

	while (nbytes--)
		v = v << 8 | p[nbytes];
	return v;
}

static size_t own_freeze(const struct lt_inflate *base,
			 u8 p[LT_INFLATE_FROZEN_MAX])
{
	const struct by_own *f = (const struct by_own *)base;
	const struct lt_deflate *d = &f->deflate;
	const size_t window_nbytes = lt_min(f->pos, WINDOW);
	u8 *const end = p + FROZEN_WINDOW + window_nbytes;

	memcpy(p + FROZEN_MAGIC, frozen_magic, sizeof(frozen_magic));
	put_number(p + FROZEN_BITS, f->buf, 8);
	p[FROZEN_N_BITS] = (u8)f->n;
	p[FROZEN_SYMBOL] = f->symbol;
	put_number(p + FROZEN_LENGTH, f->length, 2);
	put_number(p + FROZEN_DISTANCE, f->distance, 2);
	p[FROZEN_AT] = d->at;
	p[FROZEN_KIND] = d->kind;
	p[FROZEN_FINAL] = d->final;
	p[FROZEN_N_PRECODE] = (u8)d->n_precode;
	put_number(p + FROZEN_N_LITLEN, d->n_litlen, 2);
	put_number(p + FROZEN_N_DIST, d->n_dist, 2);
	put_number(p + FROZEN_HAVE, d->have, 2);
	put_number(p + FROZEN_STORED, d->stored_nbytes, 4);
	memcpy(p + FROZEN_PRECODE_LENS, d->precode_lens, LT_N_PRECODE);
	memcpy(p + FROZEN_LENS, d->lens, LT_N_LITLEN + LT_N_DIST);
	put_number(p + FROZEN_WINDOW_NBYTES, window_nbytes, 4);
	memcpy(p + FROZEN_WINDOW, f->own + f->pos - window_nbytes,
	       window_nbytes);
	put_number(end, lt_crc32(0, p, (size_t)(end - p)), FROZEN_CRC_NBYTES);
	return (size_t)(end - p) + FROZEN_CRC_NBYTES;
}

/* What lt_deflate_resume has not looked at. */
static bool is_sound(const struct by_own *f)
{
	const struct lt_deflate *d = &f->deflate;
	const bool stored = d->kind == LT_BLOCK_STORED;

	if (f->n > FROZEN_N_BITS_MAX || f->buf >> f->n)
		return false;
	if (d->at != LT_AT_BODY || stored)
		return f->symbol == LITLEN && !(d->at == LT_AT_BODY && f->n);
	switch (f->symbol) {
	case LITLEN:
		return true;
	case DIST:
		return f->length >= 3 && f->length <= MATCH_NBYTES_MAX;
	case MATCH:
		return f->length >= 1 && f->length <= MATCH_NBYTES_MAX &&
		       f->distance >= 1 && f->distance <= f->pos;
	default:
		return false;
	}
}

/* As own_freeze wrote it, but for what it may contain. */
static bool is_frozen(const u8 *p, size_t nbytes)
{
	const size_t least = FROZEN_WINDOW + FROZEN_CRC_NBYTES;
	u64 window_nbytes;

	if (nbytes < least ||
	    memcmp(p + FROZEN_MAGIC, frozen_magic, sizeof(frozen_magic)) != 0)
		return false;
	window_nbytes = number(p + FROZEN_WINDOW_NBYTES, 4);
	return window_nbytes <= WINDOW && nbytes == least + window_nbytes &&
	       lt_crc32(0, p, nbytes - FROZEN_CRC_NBYTES) ==
	       number(p + nbytes - FROZEN_CRC_NBYTES, FROZEN_CRC_NBYTES);
}

static int own_thaw(struct lt_inflate *base, const u8 *p, size_t nbytes)
{
	struct by_own *f = (struct by_own *)base;
	struct lt_deflate *d = &f->deflate;

	own_reset(base);
	if (!is_frozen(p, nbytes))
		return LT_ERR_DATA;
	f->buf = number(p + FROZEN_BITS, 8);
	f->n = p[FROZEN_N_BITS];
	f->symbol = p[FROZEN_SYMBOL];
	f->length = (u16)number(p + FROZEN_LENGTH, 2);
	f->distance = (u16)number(p + FROZEN_DISTANCE, 2);
	d->at = p[FROZEN_AT];
	d->kind = p[FROZEN_KIND];
	d->final = p[FROZEN_FINAL] & 1;
	d->n_precode = p[FROZEN_N_PRECODE];
	d->n_litlen = (u16)number(p + FROZEN_N_LITLEN, 2);
	d->n_dist = (u16)number(p + FROZEN_N_DIST, 2);
	d->have = (u16)number(p + FROZEN_HAVE, 2);
	d->stored_nbytes = (u32)number(p + FROZEN_STORED, 4);
	memcpy(d->precode_lens, p + FROZEN_PRECODE_LENS, LT_N_PRECODE);
	memcpy(d->lens, p + FROZEN_LENS, LT_N_LITLEN + LT_N_DIST);
	f->pos = (u32)number(p + FROZEN_WINDOW_NBYTES, 4);
	memcpy(f->own, p + FROZEN_WINDOW, f->pos);
	f->body_nbytes = 0;
	if (!is_sound(f) || lt_deflate_resume(d) != LT_OK) {
		own_reset(base);
		return LT_ERR_DATA;
	}
	return LT_OK;
}

const struct lt_inflater lt_inflater_own = {
	.name = "own",
	.new = own_new,
	.free = own_free,
	.reset = own_reset,
	.step = own_step,
	.stands = own_stands,
	.window = own_window,
	.pass = own_pass,
	.freeze = own_freeze,
	.thaw = own_thaw,
};

const struct lt_inflater lt_inflater_own_portable = {
	.name = "own-portable",
	.new = portable_new,
	.free = own_free,
	.reset = own_reset,
	.step = own_step,
	.stands = own_stands,
	.window = own_window,
	.pass = own_pass,
	.freeze = own_freeze,
	.thaw = own_thaw,
};
