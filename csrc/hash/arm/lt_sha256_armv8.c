/*
 * lt_sha256_armv8.c: SHA-256 on ARMv8's SHA2 extension, one lane and two.
 *
 * SHA256H and SHA256H2 do four rounds between them on a state split over two
 * registers, ABCD and EFGH; SU0 and SU1 make the next four words of the message
 * schedule (Arm ARM, C7.2: SHA256H, SHA256H2, SHA256SU0, SHA256SU1):
 *
 *	w0 = su1(su0(w0, w1), w2, w3)
 *
 * H and H2 of a group do not wait for each other, but each group waits for the
 * one before.  Two lanes interleave two independent chains; there are registers
 * enough for both, and for half of the constants.
 *
 * No ARMv8 machine was at hand, so this is counted and modelled, not timed.  A
 * block takes 100 instructions in one lane, and 101 in each of two.  Cycles a
 * byte by llvm-mca 14, one lane and two: Cortex-A57 and Neoverse N1 2.30 and
 * 1.57, Apple A14 2.03 and 1.02, Exynos M5 1.78 and 0.89, ThunderX2 3.11 and
 * 1.56; on Cortex-A55, in order, no gain and no loss.  Libcrypto's kernel has
 * one lane and the same chain in it: ours goes ahead of it.
 *
 * The four instructions are assembler and not intrinsics: compilers differ in
 * what has to be said before they let a function have those, and some have
 * them only for whole files.  It is volatile for its order: GCC would do all
 * groups of one lane and then those of the other.
 */
#include "cpu/lt_cpu.h"
#include "hash/lt_kernels.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__)
#include <arm_neon.h>

#define SHA2(op)	".arch_extension sha2\n\t" op

static inline uint32x4_t h1(uint32x4_t abcd, uint32x4_t efgh, uint32x4_t wk)
{
	__asm__ volatile(SHA2("sha256h %q0, %q1, %2.4s")
		: "+w"(abcd) : "w"(efgh), "w"(wk));
	return abcd;
}

static inline uint32x4_t h2(uint32x4_t efgh, uint32x4_t abcd, uint32x4_t wk)
{
	__asm__ volatile(SHA2("sha256h2 %q0, %q1, %2.4s")
		: "+w"(efgh) : "w"(abcd), "w"(wk));
	return efgh;
}

static inline uint32x4_t su0(uint32x4_t w0, uint32x4_t w1)
{
	__asm__ volatile(SHA2("sha256su0 %0.4s, %1.4s") : "+w"(w0) : "w"(w1));
	return w0;
}

static inline uint32x4_t su1(uint32x4_t w0, uint32x4_t w2, uint32x4_t w3)
{
	__asm__ volatile(SHA2("sha256su1 %0.4s, %1.4s, %2.4s")
		: "+w"(w0) : "w"(w2), "w"(w3));
	return w0;
}

/* Rounds 4g..4g+3 of the lane with registers x##0..x##3 (message), x##s and
 * x##r (state); 'c' is the message group at work. */
#define KEY(g)			vld1q_u32(lt_sha256_k + 4 * (g))
#define ADD_KEY(x, g, c)	x##t = vaddq_u32(x##c, KEY(g))
#define ROUNDS_ABCD(x)		x##o = x##s, x##s = h1(x##s, x##r, x##t)
#define ROUNDS_EFGH(x)		x##r = h2(x##r, x##o, x##t)
/* Group 'c' becomes the one that is four groups on; 'd', 'e' and 'f' follow
 * it. */
#define PRE(x, c, d)		x##c = su0(x##c, x##d)
#define NEXT(x, c, e, f)	x##c = su1(x##c, x##e, x##f)

#define ONE(g, c) do {							\
	ADD_KEY(a, g, c);						\
	ROUNDS_ABCD(a);							\
	ROUNDS_EFGH(a);							\
} while (0)
#define ONE_NEXT(g, c, d, e, f) do {					\
	ADD_KEY(a, g, c);						\
	PRE(a, c, d);							\
	ROUNDS_ABCD(a);							\
	ROUNDS_EFGH(a);							\
	NEXT(a, c, e, f);						\
} while (0)

#define TWO(g, c) do {							\
	ADD_KEY(a, g, c);						\
	ADD_KEY(b, g, c);						\
	ROUNDS_ABCD(a);							\
	ROUNDS_ABCD(b);							\
	ROUNDS_EFGH(a);							\
	ROUNDS_EFGH(b);							\
} while (0)
#define TWO_NEXT(g, c, d, e, f) do {					\
	ADD_KEY(a, g, c);						\
	ADD_KEY(b, g, c);						\
	PRE(a, c, d);							\
	PRE(b, c, d);							\
	ROUNDS_ABCD(a);							\
	ROUNDS_ABCD(b);							\
	ROUNDS_EFGH(a);							\
	ROUNDS_EFGH(b);							\
	NEXT(a, c, e, f);						\
	NEXT(b, c, e, f);						\
} while (0)

#define LOAD(p)		vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p)))
#define MESSAGE(x, p) do {						\
	x##0 = LOAD(p);							\
	x##1 = LOAD((p) + 16);						\
	x##2 = LOAD((p) + 32);						\
	x##3 = LOAD((p) + 48);						\
} while (0)

/* 64 rounds: all but the last four groups make one that is to come. */
#define BLOCK(group, group_next) do {					\
	group_next(0, 0, 1, 2, 3);					\
	group_next(1, 1, 2, 3, 0);					\
	group_next(2, 2, 3, 0, 1);					\
	group_next(3, 3, 0, 1, 2);					\
	group_next(4, 0, 1, 2, 3);					\
	group_next(5, 1, 2, 3, 0);					\
	group_next(6, 2, 3, 0, 1);					\
	group_next(7, 3, 0, 1, 2);					\
	group_next(8, 0, 1, 2, 3);					\
	group_next(9, 1, 2, 3, 0);					\
	group_next(10, 2, 3, 0, 1);					\
	group_next(11, 3, 0, 1, 2);					\
	group(12, 0);							\
	group(13, 1);							\
	group(14, 2);							\
	group(15, 3);							\
} while (0)

static void blocks_armv8(u32 h[8], const u8 *in, size_t n_blocks)
{
	uint32x4_t as = vld1q_u32(h), ar = vld1q_u32(h + 4);
	uint32x4_t at, ao, a0, a1, a2, a3;

	for (; n_blocks; n_blocks--, in += 64) {
		const uint32x4_t s0 = as, r0 = ar;

		MESSAGE(a, in);
		BLOCK(ONE, ONE_NEXT);
		as = vaddq_u32(as, s0);
		ar = vaddq_u32(ar, r0);
	}
	vst1q_u32(h, as);
	vst1q_u32(h + 4, ar);
}

static void blocks2_armv8(u32 ha[8], const u8 *a, u32 hb[8], const u8 *b,
			  size_t n_blocks)
{
	uint32x4_t as = vld1q_u32(ha), ar = vld1q_u32(ha + 4);
	uint32x4_t bs = vld1q_u32(hb), br = vld1q_u32(hb + 4);
	uint32x4_t at, ao, a0, a1, a2, a3;
	uint32x4_t bt, bo, b0, b1, b2, b3;

	for (; n_blocks; n_blocks--, a += 64, b += 64) {
		const uint32x4_t as0 = as, ar0 = ar, bs0 = bs, br0 = br;

		MESSAGE(a, a);
		MESSAGE(b, b);
		BLOCK(TWO, TWO_NEXT);
		as = vaddq_u32(as, as0);
		ar = vaddq_u32(ar, ar0);
		bs = vaddq_u32(bs, bs0);
		br = vaddq_u32(br, br0);
	}
	vst1q_u32(ha, as);
	vst1q_u32(ha + 4, ar);
	vst1q_u32(hb, bs);
	vst1q_u32(hb + 4, br);
}

const struct lt_kernel lt_kernel_armv8 = {
	.name = "armv8",
	.runs_here = lt_cpu_has_arm_sha2,
	.blocks = blocks_armv8,
	.blocks2 = blocks2_armv8,
};
#else
const struct lt_kernel lt_kernel_armv8 = {.name = "armv8"};
#endif
