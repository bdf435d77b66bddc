/*
 * lt_deflate.c: headers of blocks, of which the input may be cut anywhere.
 */
#include "codec/inflate/lt_deflate_tables.h"
#include "lt_api_c.h"

void lt_deflate_reset(struct lt_deflate *d)
{
	d->at = LT_AT_BLOCK;
	d->final = false;
	d->pairs_pay = false;
	d->tables = NULL;
}

/* The lengths of both codes; LT_DEFLATE_BODY when all are there. */
static int read_lengths(struct lt_deflate *d, struct lt_bits *b)
{
	const u32 n_lens = (u32)d->n_litlen + d->n_dist;
	const u8 *const from = b->in;
	u32 have = d->have;
	int ret = LT_DEFLATE_BODY;

	while (have < n_lens) {
		static const u8 extra[] = {2, 3, 7};
		u32 entry, symbol, bits, n;
		u8 len = 0;

		if (b->n < 14 && b->end - b->in >= 8) {
			b->buf |= lt_load64(b->in) << b->n;
			b->in += (63 - b->n) >> 3;
			b->n |= 56;
			b->buf &= ((u64)1 << b->n) - 1;
		}
		do {
			entry = d->precode[b->buf & ((1 << LT_PRECODE_BITS) - 1)];
			bits = entry & 0xff;
			symbol = entry >> 8;
			if (symbol >= 16)
				bits += extra[symbol - 16];
		} while (b->n < bits && lt_bits_need(b, b->n + 1));
		if (b->n < bits) {
			ret = LT_OK;
			break;
		}
		if (symbol < 16) {
			lt_bits_drop(b, bits);
			d->lens[have++] = (u8)symbol;
			continue;
		}
		lt_bits_drop(b, entry & 0xff);
		n = lt_bits_take(b, extra[symbol - 16]);
		n += symbol == 18 ? 11 : 3;
		if (symbol == 16) {
			if (!have)
				return LT_ERR_DATA;
			len = d->lens[have - 1];
		}
		if (n > n_lens - have)
			return LT_ERR_DATA;
		memset(d->lens + have, len, n);
		have += n;
	}
	d->have = (u16)have;
	if (ret == LT_DEFLATE_BODY)
		lt_bits_give_back(b, from);
	return ret;
}

static int stored_length(struct lt_deflate *d, struct lt_bits *b)
{
	u32 len;

	lt_bits_drop(b, b->n % 8);
	if (!lt_bits_need(b, 32))
		return LT_OK;
	len = lt_bits_take(b, 16);
	if ((len ^ lt_bits_take(b, 16)) != 0xffff)
		return LT_ERR_DATA;
	d->stored_nbytes = len;
	return LT_DEFLATE_BODY;
}

int lt_deflate_header(struct lt_deflate *d, struct lt_bits *b)
{
	/* RFC 1951 §3.2.7. */
	static const u8 order[LT_N_PRECODE] = {
		16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1,
		15,
	};
	int ret;

	switch (d->at) {
	case LT_AT_BLOCK:
		if (!lt_bits_need(b, 3))
			return LT_OK;
		d->final = lt_bits_take(b, 1);
		d->kind = (u8)lt_bits_take(b, 2);
		if (d->kind == LT_BLOCK_FIXED) {
			lt_deflate_use_fixed(d);
			break;
		}
		if (d->kind == LT_BLOCK_STORED) {
			d->at = LT_AT_STORED_LENGTH;
			return lt_deflate_header(d, b);
		}
		if (d->kind != LT_BLOCK_DYNAMIC)
			return LT_ERR_DATA;
		d->at = LT_AT_COUNTS;
		/* fallthrough */
	case LT_AT_COUNTS:
		if (!lt_bits_need(b, 14))
			return LT_OK;
		d->n_litlen = (u16)(257 + lt_bits_take(b, 5));
		d->n_dist = (u16)(1 + lt_bits_take(b, 5));
		d->n_precode = (u16)(4 + lt_bits_take(b, 4));
		/* More symbols than there are; the two longest lengths of
		 * fixed codes and their distances mean nothing. */
		if (d->n_litlen > 286 || d->n_dist > 30)
			return LT_ERR_DATA;
		memset(d->precode_lens, 0, sizeof(d->precode_lens));
		d->have = 0;
		d->at = LT_AT_PRECODE;
		/* fallthrough */
	case LT_AT_PRECODE:
		for (; d->have < d->n_precode; d->have++) {
			if (!lt_bits_need(b, 3))
				return LT_OK;
			d->precode_lens[order[d->have]] =
				(u8)lt_bits_take(b, 3);
		}
		if (lt_deflate_build_precode(d) != LT_OK)
			return LT_ERR_DATA;
		d->have = 0;
		d->at = LT_AT_LENGTHS;
		/* fallthrough */
	case LT_AT_LENGTHS:
		ret = read_lengths(d, b);
		if (ret != LT_DEFLATE_BODY)
			return ret;
		if (lt_deflate_build_dynamic(d) != LT_OK)
			return LT_ERR_DATA;
		break;
	case LT_AT_STORED_LENGTH:
		ret = stored_length(d, b);
		if (ret != LT_DEFLATE_BODY)
			return ret;
		break;
	}
	d->at = LT_AT_BODY;
	return LT_DEFLATE_BODY;
}

static bool all_at_most(const u8 *lens, u32 n, u8 most)
{
	for (u32 i = 0; i < n; i++)
		if (lens[i] > most)
			return false;
	return true;
}

int lt_deflate_resume(struct lt_deflate *d)
{
	const u32 n_lens = (u32)d->n_litlen + d->n_dist;
	const bool counted = d->n_litlen >= 257 && d->n_litlen <= 286 &&
			     d->n_dist >= 1 && d->n_dist <= 30;

	d->pairs_pay = d->paired = false;
	switch (d->at) {
	case LT_AT_BLOCK:
		return LT_OK;
	case LT_AT_STORED_LENGTH:
		return d->kind == LT_BLOCK_STORED ? LT_OK : LT_ERR_DATA;
	case LT_AT_COUNTS:
		return d->kind == LT_BLOCK_DYNAMIC ? LT_OK : LT_ERR_DATA;
	case LT_AT_PRECODE:
		if (d->kind != LT_BLOCK_DYNAMIC || !counted ||
		    d->n_precode < 4 || d->n_precode > LT_N_PRECODE ||
		    d->have > d->n_precode)
			return LT_ERR_DATA;
		return all_at_most(d->precode_lens, LT_N_PRECODE,
				   LT_PRECODE_BITS) ? LT_OK : LT_ERR_DATA;
	case LT_AT_LENGTHS:
		if (d->kind != LT_BLOCK_DYNAMIC || !counted ||
		    d->have > n_lens ||
		    !all_at_most(d->lens, d->have, LT_CODE_BITS_MAX) ||
		    !all_at_most(d->precode_lens, LT_N_PRECODE, LT_PRECODE_BITS))
			return LT_ERR_DATA;
		return lt_deflate_build_precode(d);
	case LT_AT_BODY:
		if (d->kind == LT_BLOCK_STORED)
			return d->stored_nbytes <= 0xffff ? LT_OK : LT_ERR_DATA;
		if (d->kind == LT_BLOCK_FIXED) {
			lt_deflate_use_fixed(d);
			return LT_OK;
		}
		if (d->kind != LT_BLOCK_DYNAMIC || !counted ||
		    !all_at_most(d->lens, n_lens, LT_CODE_BITS_MAX))
			return LT_ERR_DATA;
		return lt_deflate_build_dynamic(d);
	default:
		return LT_ERR_DATA;
	}
}
