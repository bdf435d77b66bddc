/*
 * lt_sha256.h: SHA-256 (FIPS 180-4) of streams, alone or two at a time.
 *
 *	lt_sha256_init(&s);
 *	lt_sha256_update(&s, in, in_nbytes);	as often as there is more
 *	lt_sha256_final(&s, digest);		once; 's' is used up
 *
 * A state belongs to one thread at a time and holds no memory of its own.  It
 * is the same for all kernels, so that any two streams can be hashed together
 * and a stream may change kernels between two calls.  Which kernel runs is
 * chosen for the whole process: lt_kernel_use in lt_api.h, where one-shot
 * hashing is, too.
 */
#ifndef LT_SHA256_H
#define LT_SHA256_H

#include "lt_common.h"

/* 'fill' bytes of an unfinished block wait in 'block'. */
struct lt_sha256_state {
	u32 h[8];
	u64 nbytes;
	u32 fill;
	u8 block[64];
};

void lt_sha256_init(struct lt_sha256_state *s);
void lt_sha256_update(struct lt_sha256_state *s,
		      const u8 *in, size_t in_nbytes);
/* All of both; the common part goes through the two-lane kernel, if there is
 * one.  The two may have any length and alignment, but must not be the same. */
void lt_sha256_update2(struct lt_sha256_state *a,
		       const u8 *a_in, size_t a_nbytes,
		       struct lt_sha256_state *b,
		       const u8 *b_in, size_t b_nbytes);
void lt_sha256_final(struct lt_sha256_state *s, u8 digest_ret[32]);

#endif
