/*
 * lt_ahead.h: pieces of a stream that are decoded before their turn.
 *
 * Some streams have places where a decoder can begin without having read what
 * stands before them: each frame of a zstd file, and each flush marker of a
 * deflate stream, behind which only the window is unknown (lt_ahead_deflate.c).
 * A piece begins at such a place and ends at one.  Any thread may decode it,
 * while the codec is still busy with what comes before:
 *
 *	if (lt_ahead_find(format, in, nbytes, from, &at))
 *		lt_ahead_decode(a, format, pos, in + at, ...);
 *
 * and when the codec has come to the place in its turn:
 *
 *	if (lt_codec_adopt(c, a))
 *		while (!lt_codec_take(c, a, out, room, &n))
 *			...
 *
 * The place is a guess, the piece is not: the codec adopts it only if it
 * stands at that very byte of the stream and in the state in which the piece
 * began, so that decoding on would yield the same bytes.  If it does not, or
 * the piece was damaged or too large, the codec goes on by itself, and all
 * that was lost is time.  No verdict, no byte and no count depends on pieces.
 */
#ifndef LT_AHEAD_H
#define LT_AHEAD_H

#include "lt_common.h"

/* Most bytes that a piece can inflate to: what podman's gzip puts between two
 * markers.  A piece takes up to three times as much memory. */
#define LT_AHEAD_OUT_MAX ((size_t)1 << 20)

typedef struct lt_ahead lt_ahead;
struct lt_codec;

/* NULL: no memory.  What a format needs is allocated when it is first met. */
lt_ahead *lt_ahead_new(void);
void lt_ahead_free(lt_ahead *a);

/* Whether streams of a format can be decoded by pieces in this process. */
bool lt_ahead_can(int format);

/* The offset in 'in', at or after 'from', of the first byte at which a piece
 * may begin; it may be 'nbytes'.  False: there is none. */
bool lt_ahead_find(int format, const u8 *in, size_t nbytes, size_t from,
		   size_t *at_ret);

/*
 * Decode the bytes at 'in', which begin at offset 'in_pos' of the stream, as
 * far as they contain whole pieces that fit.  False: not even one does.
 * 'check_crc' as the stream's.
 */
bool lt_ahead_decode(lt_ahead *a, int format, bool check_crc, u64 in_pos,
		     const u8 *in, size_t nbytes);

/* Of what was decoded: the bytes of input, and what they inflate to. */
size_t lt_ahead_in_nbytes(const lt_ahead *a);
size_t lt_ahead_out_nbytes(const lt_ahead *a);

/* The codec goes on with the piece: true; or it does not stand where the piece
 * begins, or the output budget would not last: false, and nothing changed. */
bool lt_codec_adopt(struct lt_codec *c, lt_ahead *a);
/* Write up to 'room' bytes of the piece that was adopted.  True: that was all,
 * its input is the codec's past, and 'a' may be used for another. */
bool lt_codec_take(struct lt_codec *c, lt_ahead *a, u8 *out, size_t room,
		   size_t *nbytes_ret);

/* --- for formats ---------------------------------------------------------- */

struct lt_decoder;

struct lt_ahead {
	const struct lt_ahead_ops *ops;	/* of the piece, NULL: there was none yet */
	void *work;			/* what the format keeps from piece to piece */
	bool check_crc;
	u64 in_pos;
	size_t in_nbytes;
	size_t out_nbytes;
	u64 n_members;			/* parts that end in the piece */
	size_t n_taken;			/* of out_nbytes */
};

/* What a format that has pieces can do; lt_format_ops.ahead. */
struct lt_ahead_ops {
	/* False: not in this process. */
	bool (*can)(void);
	void *(*new_work)(void);
	void (*free_work)(void *work);
	bool (*find)(const u8 *in, size_t nbytes, size_t from, size_t *at_ret);
	/* Sets in_nbytes, out_nbytes, n_members; they are 0. */
	void (*decode)(lt_ahead *a, const u8 *in, size_t nbytes);
	/* Whether the decoder stands where the piece can follow. */
	bool (*stands)(const struct lt_decoder *d, const lt_ahead *a);
	/* The piece follows. */
	void (*adopt)(struct lt_decoder *d, lt_ahead *a);
	/* Write bytes n_taken to n_taken + nbytes of it. */
	void (*take)(struct lt_decoder *d, lt_ahead *a, u8 *out, size_t nbytes);
	/* All was taken: the decoder stands behind the piece. */
	void (*pass)(struct lt_decoder *d, const lt_ahead *a);
};

#endif
