/*
 * lt_inflate_frozen.c: a stream that is begun, as bytes, and from them again.
 *
 * What is written is the same on every machine.  What is read may be anything:
 * a state that decoding does not lead to is refused.
 */
#include "codec/inflate/lt_inflate_own.h"
#include "codec/lt_crc32.h"
#include "lt_api_c.h"

#define WINDOW		LT_OWN_WINDOW

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

size_t lt_own_freeze(const struct lt_inflate *base,
		     u8 p[LT_INFLATE_FROZEN_MAX])
{
	const struct lt_own *f = (const struct lt_own *)base;
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
static bool is_sound(const struct lt_own *f)
{
	const struct lt_deflate *d = &f->deflate;
	const bool stored = d->kind == LT_BLOCK_STORED;

	if (f->n > FROZEN_N_BITS_MAX || f->buf >> f->n)
		return false;
	if (d->at != LT_AT_BODY || stored)
		return f->symbol == LT_OWN_LITLEN && !(d->at == LT_AT_BODY && f->n);
	switch (f->symbol) {
	case LT_OWN_LITLEN:
		return true;
	case LT_OWN_DIST:
		return f->length >= 3 && f->length <= LT_OWN_MATCH_MAX;
	case LT_OWN_MATCH:
		return f->length >= 1 && f->length <= LT_OWN_MATCH_MAX &&
		       f->distance >= 1 && f->distance <= f->pos;
	default:
		return false;
	}
}

/* As lt_own_freeze wrote it, but for what it may contain. */
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

int lt_own_thaw(struct lt_inflate *base, const u8 *p, size_t nbytes)
{
	struct lt_own *f = (struct lt_own *)base;
	struct lt_deflate *d = &f->deflate;

	lt_own_reset(base);
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
		lt_own_reset(base);
		return LT_ERR_DATA;
	}
	return LT_OK;
}
