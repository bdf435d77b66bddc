/*
 * lt_sha256_shani.c: SHA-256 on x86 SHA extensions, one lane and two.
 *
 * The instruction does two rounds on a state split over two registers, in the
 * order ABEF and CDGH; four rounds take 16 bytes of the message schedule.
 * With w0..w3 the last four groups of four words, the next group is
 *
 *	msg2(msg1(w0, w1) + alignr(w3, w2, 4), w3)
 *
 * (Intel SDM vol. 2, SHA256MSG1/MSG2).  msg1 is issued as soon as its inputs
 * exist, two groups ahead of its use.
 *
 * One lane is bound by the latency of sha256rnds2 (4 cycles; one can start
 * every 2).  Two lanes interleave two independent chains: 4 state and 8 message
 * registers fit the 16 that there are, the saved state goes to the stack once
 * a block.  tests/c/bench_sha256.c on a Zen 5 VM (4.2 GHz): one lane 2.1 GB/s,
 * which is that latency; two lanes 3.3 GB/s together.  There, two chains of
 * bare rounds with the message schedule taken out run no faster (10.2 cycles
 * for 4+4 rounds where 8 are ideal), so this is the scheduler of the CPU, not
 * a lack of registers.  Taking turns every two rounds, with the schedule
 * behind the rounds, beat every other order by 3 to 10 %.
 */
#include "cpu/lt_cpu.h"
#include "hash/lt_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define SHANI LT_TARGET("sha,sse4.1,ssse3")

#define LOAD(p)		_mm_loadu_si128((const __m128i *)(const void *)(p))
#define STORE(p, v)	_mm_storeu_si128((__m128i *)(void *)(p), (v))
#define KEY(g)		_mm_load_si128((const __m128i *)(const void *) \
				       (lt_sha256_k + 4 * (g)))

/* Rounds 4g..4g+3 of the lane with registers x##0.. (message), x##s and x##r
 * (state).  'c' is the current message group, 'p' the one before, 'n' the
 * next.  The pieces are separate so that two lanes can take turns. */
#define ADD_KEY(x, g, c)	x##t = _mm_add_epi32(x##c, KEY(g))
#define ROUNDS_LO(x)		x##r = _mm_sha256rnds2_epu32(x##r, x##s, x##t)
#define HIGH_HALF(x)		x##t = _mm_shuffle_epi32(x##t, 0x0e)
#define ROUNDS_HI(x)		x##s = _mm_sha256rnds2_epu32(x##s, x##r, x##t)
#define NEXT(x, p, c, n)						\
	x##n = _mm_sha256msg2_epu32(					\
		_mm_add_epi32(x##n, _mm_alignr_epi8(x##c, x##p, 4)), x##c)
#define PRE(x, p, c)		x##p = _mm_sha256msg1_epu32(x##p, x##c)

#define ONE(g, c, next, pre) do {					\
	ADD_KEY(a, g, c);						\
	ROUNDS_LO(a);							\
	next;								\
	HIGH_HALF(a);							\
	ROUNDS_HI(a);							\
	pre;								\
} while (0)

#define TWO(g, c, next_a, next_b, pre_a, pre_b) do {			\
	ADD_KEY(a, g, c);						\
	ROUNDS_LO(a);							\
	ADD_KEY(b, g, c);						\
	ROUNDS_LO(b);							\
	HIGH_HALF(a);							\
	ROUNDS_HI(a);							\
	HIGH_HALF(b);							\
	ROUNDS_HI(b);							\
	next_a;								\
	next_b;								\
	pre_a;								\
	pre_b;								\
} while (0)

#define NOTHING ((void)0)

/* h[] is A..H in memory order; the registers want ABEF and CDGH. */
#define PACK(h, s, r) do {						\
	__m128i cdab = _mm_shuffle_epi32(LOAD(h), 0xb1);		\
	__m128i efgh = _mm_shuffle_epi32(LOAD((h) + 4), 0x1b);		\
	s = _mm_alignr_epi8(cdab, efgh, 8);				\
	r = _mm_blend_epi16(efgh, cdab, 0xf0);				\
} while (0)

#define UNPACK(h, s, r) do {						\
	__m128i feba = _mm_shuffle_epi32(s, 0x1b);			\
	__m128i dchg = _mm_shuffle_epi32(r, 0xb1);			\
	STORE(h, _mm_blend_epi16(feba, dchg, 0xf0));			\
	STORE((h) + 4, _mm_alignr_epi8(dchg, feba, 8));			\
} while (0)

#define MESSAGE(x, p) do {						\
	x##0 = _mm_shuffle_epi8(LOAD(p), swap);				\
	x##1 = _mm_shuffle_epi8(LOAD((p) + 16), swap);			\
	x##2 = _mm_shuffle_epi8(LOAD((p) + 32), swap);			\
	x##3 = _mm_shuffle_epi8(LOAD((p) + 48), swap);			\
} while (0)

SHANI static void blocks_shani(u32 h[8], const u8 *in, size_t n_blocks)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b,
					    0x0405060700010203);
	__m128i as, ar, at, a0, a1, a2, a3;

	PACK(h, as, ar);
	for (; n_blocks; n_blocks--, in += 64) {
		const __m128i s0 = as, r0 = ar;

		MESSAGE(a, in);
		ONE(0, 0, NOTHING, NOTHING);
		ONE(1, 1, NOTHING, PRE(a, 0, 1));
		ONE(2, 2, NOTHING, PRE(a, 1, 2));
		ONE(3, 3, NEXT(a, 2, 3, 0), PRE(a, 2, 3));
		ONE(4, 0, NEXT(a, 3, 0, 1), PRE(a, 3, 0));
		ONE(5, 1, NEXT(a, 0, 1, 2), PRE(a, 0, 1));
		ONE(6, 2, NEXT(a, 1, 2, 3), PRE(a, 1, 2));
		ONE(7, 3, NEXT(a, 2, 3, 0), PRE(a, 2, 3));
		ONE(8, 0, NEXT(a, 3, 0, 1), PRE(a, 3, 0));
		ONE(9, 1, NEXT(a, 0, 1, 2), PRE(a, 0, 1));
		ONE(10, 2, NEXT(a, 1, 2, 3), PRE(a, 1, 2));
		ONE(11, 3, NEXT(a, 2, 3, 0), PRE(a, 2, 3));
		ONE(12, 0, NEXT(a, 3, 0, 1), PRE(a, 3, 0));
		ONE(13, 1, NEXT(a, 0, 1, 2), NOTHING);
		ONE(14, 2, NEXT(a, 1, 2, 3), NOTHING);
		ONE(15, 3, NOTHING, NOTHING);
		as = _mm_add_epi32(as, s0);
		ar = _mm_add_epi32(ar, r0);
	}
	UNPACK(h, as, ar);
}

#define TWO_NEXT_PRE(g, p, c, n) \
	TWO(g, c, NEXT(a, p, c, n), NEXT(b, p, c, n),			\
	    PRE(a, p, c), PRE(b, p, c))
#define TWO_PRE(g, p, c) \
	TWO(g, c, NOTHING, NOTHING, PRE(a, p, c), PRE(b, p, c))
#define TWO_NEXT(g, p, c, n) \
	TWO(g, c, NEXT(a, p, c, n), NEXT(b, p, c, n), NOTHING, NOTHING)

SHANI static void blocks2_shani(u32 ha[8], const u8 *a, u32 hb[8], const u8 *b,
				size_t n_blocks)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b,
					    0x0405060700010203);
	__m128i as, ar, at, a0, a1, a2, a3;
	__m128i bs, br, bt, b0, b1, b2, b3;

	PACK(ha, as, ar);
	PACK(hb, bs, br);
	for (; n_blocks; n_blocks--, a += 64, b += 64) {
		const __m128i as0 = as, ar0 = ar, bs0 = bs, br0 = br;

		MESSAGE(a, a);
		MESSAGE(b, b);
		TWO(0, 0, NOTHING, NOTHING, NOTHING, NOTHING);
		TWO_PRE(1, 0, 1);
		TWO_PRE(2, 1, 2);
		TWO_NEXT_PRE(3, 2, 3, 0);
		TWO_NEXT_PRE(4, 3, 0, 1);
		TWO_NEXT_PRE(5, 0, 1, 2);
		TWO_NEXT_PRE(6, 1, 2, 3);
		TWO_NEXT_PRE(7, 2, 3, 0);
		TWO_NEXT_PRE(8, 3, 0, 1);
		TWO_NEXT_PRE(9, 0, 1, 2);
		TWO_NEXT_PRE(10, 1, 2, 3);
		TWO_NEXT_PRE(11, 2, 3, 0);
		TWO_NEXT_PRE(12, 3, 0, 1);
		TWO_NEXT(13, 0, 1, 2);
		TWO_NEXT(14, 1, 2, 3);
		TWO(15, 3, NOTHING, NOTHING, NOTHING, NOTHING);
		as = _mm_add_epi32(as, as0);
		ar = _mm_add_epi32(ar, ar0);
		bs = _mm_add_epi32(bs, bs0);
		br = _mm_add_epi32(br, br0);
	}
	UNPACK(ha, as, ar);
	UNPACK(hb, bs, br);
}

const struct lt_kernel lt_kernel_shani = {
	.name = "shani",
	.runs_here = lt_cpu_has_shani,
	.blocks = blocks_shani,
	.blocks2 = blocks2_shani,
};
#else
const struct lt_kernel lt_kernel_shani = {.name = "shani"};
#endif
