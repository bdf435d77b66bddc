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
#include "codec/inflate/lt_inflate_own.h"
#include "cpu/lt_cpu.h"
#include "lt_api_c.h"

#define WINDOW		LT_OWN_WINDOW
/* With less room than this, a call stays in the window: copying that back and
 * forth would be more. */
#define DIRECT_NBYTES	(3 * WINDOW)

#define LOOP_UNIT	u8
#define LOOP_IN_MARGIN	32
#define LOOP_OUT_MARGIN	LT_OWN_MARGIN

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
static int run_fast(struct lt_own *f, struct lt_bits *b, struct span *s)
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
static bool copy_match(struct lt_own *f, struct span *s)
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

static int one_symbol(struct lt_own *f, struct lt_bits *b, struct span *s)
{
	const struct lt_deflate *d = &f->deflate;
	u64 entry;

	switch (f->symbol) {
	case LT_OWN_LITLEN:
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
			f->symbol = LT_OWN_DIST;
			return GOES_ON;
		}
		if (s->out == s->end)
			return STUCK;
		lt_bits_drop(b, entry & 0xff);
		*s->out++ = (u8)(entry >> 32);
		return GOES_ON;
	case LT_OWN_DIST:
		if (!look_up(d, b, LT_DIST_AT, LT_DIST_BITS, &entry))
			return STUCK;
		if (entry & LT_CODE_OTHER)
			return LT_ERR_DATA;
		f->distance = (u16)take_value(b, entry, 32);
		if (f->distance > (size_t)(s->out - s->begin))
			return LT_ERR_DATA;
		f->symbol = LT_OWN_MATCH;
		/* fallthrough */
	default:
		if (!copy_match(f, s))
			return STUCK;
		f->symbol = LT_OWN_LITLEN;
		return GOES_ON;
	}
}

/* --- Blocks -------------------------------------------------------------- */

/* Both: LT_DEFLATE_BODY at the end of the block, LT_OK where input or room
 * runs out before or 'enough' was made. */
static int body(struct lt_own *f, struct lt_bits *b, struct span *s)
{
	int ret;

	do {
		if (f->symbol == LT_OWN_LITLEN &&
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

static int stored_body(struct lt_own *f, struct lt_bits *b, struct span *s)
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
static int decode(struct lt_own *f, struct lt_bits *b, struct span *s)
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
static void make_room(struct lt_own *f, size_t nbytes)
{
	if (f->pos + nbytes > 2 * WINDOW) {
		memmove(f->own, f->own + f->pos - WINDOW, WINDOW);
		f->pos = WINDOW;
	}
}

/* In 'own', behind what is there, then to the caller.  '*full_ret': 'enough'
 * bytes were made, or as many as 'own' or the caller has room for. */
static int decode_here(struct lt_own *f, struct lt_bits *b,
		       struct lt_cursor *io, size_t enough, bool *full_ret)
{
	struct span s = {.begin = f->own};
	u8 *from;
	int ret;

	from = f->own + f->pos;
	s.out = from;
	s.end = from + lt_min(sizeof(f->own) - f->pos, io->out_nbytes);
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
static int decode_there(struct lt_own *f, struct lt_bits *b,
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
	struct lt_own *f = (struct lt_own *)base;
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

void lt_own_reset(struct lt_inflate *base)
{
	struct lt_own *f = (struct lt_own *)base;

	f->buf = 0;
	f->n = 0;
	f->symbol = LT_OWN_LITLEN;
	f->pos = 0;
	lt_deflate_reset(&f->deflate);
}

/* --- Pieces -------------------------------------------------------------- */

static bool own_stands(const struct lt_inflate *base)
{
	const struct lt_own *f = (const struct lt_own *)base;

	return f->deflate.at == LT_AT_BLOCK && !f->deflate.final && !f->n &&
	       f->pos >= WINDOW;
}

static void own_window(const struct lt_inflate *base, u8 *window_ret)
{
	const struct lt_own *f = (const struct lt_own *)base;

	memcpy(window_ret, f->own + f->pos - WINDOW, WINDOW);
}

static void own_pass(struct lt_inflate *base, const u8 *window)
{
	struct lt_own *f = (struct lt_own *)base;

	memcpy(f->own, window, WINDOW);
	f->pos = WINDOW;
}

static struct lt_inflate *new_with(lt_own_loop *fast)
{
	struct lt_own *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fast = fast;
	lt_own_reset(&f->base);
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

const struct lt_inflater lt_inflater_own = {
	.name = "own",
	.new = own_new,
	.free = own_free,
	.reset = lt_own_reset,
	.step = own_step,
	.stands = own_stands,
	.window = own_window,
	.pass = own_pass,
	.freeze = lt_own_freeze,
	.thaw = lt_own_thaw,
};

const struct lt_inflater lt_inflater_own_portable = {
	.name = "own-portable",
	.new = portable_new,
	.free = own_free,
	.reset = lt_own_reset,
	.step = own_step,
	.stands = own_stands,
	.window = own_window,
	.pass = own_pass,
	.freeze = lt_own_freeze,
	.thaw = lt_own_thaw,
};
