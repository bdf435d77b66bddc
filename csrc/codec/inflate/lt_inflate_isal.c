/*
 * lt_inflate_isal.c: raw deflate by ISA-L.
 *
 * It never sees a gzip header or trailer: ISA-L 2.30 accepts reserved header
 * flags, fails on a header CRC that is cut in two, and calls a cut stream no
 * error.  What is left to it is what it is fast at.
 *
 * Habits of ISA-L that are dealt with here:
 *  - It counts in 32 bits: a call gets at most 1 MiB, and the caller counts.
 *  - It reads up to 8 bytes past the last block into a bit buffer.  Before
 *    2.32 it keeps them there; since then it moves next_in back, if need be to
 *    before the input of this call.  Either way they may come from an earlier
 *    call, so they are handed back as bytes.
 *  - It decodes up to 64 KiB ahead of the output.  On corrupt data it returns
 *    at once and drops them; we deliver them first, so that the output and
 *    the output budget do not depend on how the input was cut.
 *  - In its fast loop, but not near the end of the input, it counts a match as
 *    written before it refuses it.  The last 258 bytes (the longest match)
 *    before an error are therefore dropped: they may be anything.  The counts
 *    are then wrong, too (avail_in was "-2" of 32); the pointers are right.
 *  - Where the input ends for good, a literal that is complete may stay
 *    undecoded, as it looks up two or three of them at once.
 * So the last bytes before an error depend on the cuts; the verdict does not.
 *
 * ISA-L accepts Huffman codes that leave some bit patterns unused; zlib and Go
 * refuse such a block.  Harmless: no compressor makes one, and the DiffID
 * judges what comes out.
 */
#include "codec/inflate/lt_inflate.h"
#include "lt_api_c.h"

#ifdef LT_HAVE_ISAL
#include <isa-l/igzip_lib.h>

#define MATCH_NBYTES_MAX 258

struct by_isal {
	struct lt_inflate base;
	struct inflate_state s;
	bool corrupt;
	u8 recent[LT_INFLATE_SURPLUS_MAX];	/* the last bytes taken */
};

static struct lt_inflate *isal_new(void)
{
	struct by_isal *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	isal_inflate_init(&f->s);
	f->s.crc_flag = ISAL_DEFLATE;
	return &f->base;
}

static void isal_free(struct lt_inflate *base)
{
	free(base);
}

static void isal_reset(struct lt_inflate *base)
{
	struct by_isal *f = (struct by_isal *)base;

	isal_inflate_reset(&f->s);
	f->corrupt = false;
}

static void remember(struct by_isal *f, const u8 *in, size_t nbytes)
{
	const size_t n = lt_min(nbytes, sizeof(f->recent));

	memmove(f->recent, f->recent + n, sizeof(f->recent) - n);
	memcpy(f->recent + sizeof(f->recent) - n, in + nbytes - n, n);
}

/* Forget the match that was refused, wherever it was to be written. */
static void drop_match(struct by_isal *f, struct lt_cursor *io,
		       size_t fresh_nbytes)
{
	struct inflate_state *s = &f->s;
	const size_t ahead = (size_t)(s->tmp_out_valid - s->tmp_out_processed);
	const size_t from_ahead = lt_min(ahead, MATCH_NBYTES_MAX);
	const size_t from_fresh = lt_min(fresh_nbytes,
					 MATCH_NBYTES_MAX - from_ahead);

	s->tmp_out_valid -= (int32_t)from_ahead;
	io->out -= from_fresh;
	io->out_nbytes += from_fresh;
}

/* Deliver what was decoded ahead of the corruption, then report it. */
static int drain(struct by_isal *f, struct lt_cursor *io)
{
	struct inflate_state *s = &f->s;
	size_t n = lt_min((size_t)(s->tmp_out_valid - s->tmp_out_processed),
			  io->out_nbytes);

	if (n)
		memcpy(io->out, s->tmp_out_buffer + s->tmp_out_processed, n);
	s->tmp_out_processed += (int32_t)n;
	lt_cursor_made(io, n);
	return s->tmp_out_processed < s->tmp_out_valid ? LT_OK : LT_ERR_DATA;
}

static int isal_step(struct lt_inflate *base, struct lt_cursor *io,
		     u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		     size_t *surplus_nbytes_ret)
{
	struct by_isal *f = (struct by_isal *)base;
	struct inflate_state *s = &f->s;
	const u32 in_nbytes = (u32)lt_min(io->in_nbytes, LT_INFLATE_STEP_MAX);
	const u32 out_nbytes = (u32)lt_min(io->out_nbytes, LT_INFLATE_STEP_MAX);
	const u8 *in = io->in;
	size_t n, made;
	int ret;

	if (f->corrupt)
		return drain(f, io);

	s->next_in = (u8 *)(uintptr_t)in;	/* never written through */
	s->avail_in = in_nbytes;
	s->next_out = io->out;
	s->avail_out = out_nbytes;
	ret = isal_inflate(s);
	made = lt_min((size_t)(s->next_out - io->out), out_nbytes);
	lt_cursor_made(io, made);
	if (s->next_in > in) {
		n = lt_min((size_t)(s->next_in - in), in_nbytes);
		lt_cursor_skip(io, n);
		remember(f, in, n);
	}

	if (ret < 0) {
		f->corrupt = true;
		drop_match(f, io, made);
		return drain(f, io);
	}
	if (s->block_state != ISAL_BLOCK_FINISH)
		return LT_OK;

	/* 'recent' ends with what was read too much: as 2.30 counts it, or as
	 * far as 2.32 went back beyond this input. */
	n = s->read_in_length > 0 ? (size_t)s->read_in_length / 8 : 0;
	if (s->next_in < in)
		n = (size_t)(in - s->next_in);
	n = lt_min(n, sizeof(f->recent));
	memcpy(surplus_ret, f->recent + sizeof(f->recent) - n, n);
	*surplus_nbytes_ret = n;
	return LT_INFLATE_END;
}

const struct lt_inflater lt_inflater_isal = {
	.name = "isal",
	.new = isal_new,
	.free = isal_free,
	.reset = isal_reset,
	.step = isal_step,
};
#else
const struct lt_inflater lt_inflater_isal = {.name = "isal"};
#endif
