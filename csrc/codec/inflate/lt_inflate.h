/*
 * lt_inflate.h: raw deflate (RFC 1951), by the inflater of choice.
 *
 * An inflater is one implementation, ours or a library's.  Which one is used
 * is chosen for the whole process: lt_inflater_use in lt_api.h.  No inflater
 * sees a gzip header or trailer: they are lt_gzip.c's.
 *
 *	f = lt_inflate_renew(f);	a file begins; NULL the first time
 *	lt_inflate_reset(f);		a stream of it begins
 *	lt_inflate_step(f, ...);	until LT_INFLATE_END
 */
#ifndef LT_INFLATE_H
#define LT_INFLATE_H

#include "codec/lt_cursor.h"

/* Most bytes an inflater can have read past the end of a deflate stream. */
#define LT_INFLATE_SURPLUS_MAX 8
/* Libraries count in 32 bits: they never get more than this in one call. */
#define LT_INFLATE_STEP_MAX ((size_t)1 << 20)

/* A positive enum lt_status of this header alone. */
enum { LT_INFLATE_END = 1 };

struct lt_inflate;

/*
 * A decoder by the inflater that is in use now: 'f' itself if that has made
 * it; if not, 'f' is freed and another made.  NULL: no memory, 'f' is freed.
 */
struct lt_inflate *lt_inflate_renew(struct lt_inflate *f);
void lt_inflate_free(struct lt_inflate *f);
void lt_inflate_reset(struct lt_inflate *f);

/*
 * Inflate from cursor to cursor: LT_OK (more to come), LT_INFLATE_END or an
 * error.  Needs output room, even where none will be used.  What was decoded
 * before corrupt data is delivered before LT_ERR_DATA is returned, with ISA-L
 * up to 258 bytes less.
 *
 * At the end, '*surplus_nbytes_ret' bytes that follow the deflate stream were
 * taken from the input, perhaps in an earlier call; they are in 'surplus_ret'.
 */
int lt_inflate_step(struct lt_inflate *f, struct lt_cursor *io,
		    u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		    size_t *surplus_nbytes_ret);

/*
 * Pieces that were decoded elsewhere (codec/ahead/lt_ahead_deflate.c).
 *
 * Whether the inflater in use can go on behind one; whether a decoder stands
 * where one can follow, which is between two blocks, at a byte, with a window
 * of 32 KiB; that window; and the one behind the piece.
 */
bool lt_inflate_can_pass(void);
bool lt_inflate_stands(const struct lt_inflate *f);
void lt_inflate_window(const struct lt_inflate *f, u8 *window_ret);
void lt_inflate_pass(struct lt_inflate *f, const u8 *window);

/*
 * A stream that is begun can be frozen between two steps of which the last
 * returned LT_OK, and go on in another decoder or process, at the byte of input
 * that follows the last one taken and at the byte of output that follows the
 * last one made.  What is frozen is the same on every machine and has a version
 * and a checksum of its own.
 */
#define LT_INFLATE_FROZEN_MAX	(((size_t)32 << 10) + 400)

/* Its size; 0: by this inflater it cannot be done. */
size_t lt_inflate_freeze(const struct lt_inflate *f,
			 u8 frozen_ret[LT_INFLATE_FROZEN_MAX]);
/* LT_ERR_MISUSE: by this inflater it cannot be done.  LT_ERR_DATA: it is
 * damaged, or of another version; 'f' is then as after lt_inflate_reset. */
int lt_inflate_thaw(struct lt_inflate *f, const u8 *frozen, size_t nbytes);

/* --- for those who write one --------------------------------------------- */

/* One file each, which defines its lt_inflater in every build; where its
 * library is missing, 'new' is NULL and so is all else. */
struct lt_inflater {
	const char *name;
	struct lt_inflate *(*new)(void);	/* 'by' is set by the caller */
	void (*free)(struct lt_inflate *f);
	void (*reset)(struct lt_inflate *f);
	int (*step)(struct lt_inflate *f, struct lt_cursor *io,
		    u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		    size_t *surplus_nbytes_ret);
	/* The same for pieces; all three NULL: it cannot. */
	bool (*stands)(const struct lt_inflate *f);
	void (*window)(const struct lt_inflate *f, u8 *window_ret);
	void (*pass)(struct lt_inflate *f, const u8 *window);
	/* And for freezing; both, or neither. */
	size_t (*freeze)(const struct lt_inflate *f,
			 u8 frozen_ret[LT_INFLATE_FROZEN_MAX]);
	int (*thaw)(struct lt_inflate *f, const u8 *frozen, size_t nbytes);
};

/* First in the struct of each inflater's decoder. */
struct lt_inflate {
	const struct lt_inflater *by;
};

extern const struct lt_inflater lt_inflater_own;
extern const struct lt_inflater lt_inflater_own_portable;
extern const struct lt_inflater lt_inflater_isal;
extern const struct lt_inflater lt_inflater_zlib;

#endif
