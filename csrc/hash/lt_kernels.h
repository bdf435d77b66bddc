/*
 * lt_kernels.h: what a SHA-256 kernel is, for those who write one.
 *
 * A kernel runs whole 64-byte blocks through the compression function and
 * does nothing else.  Each has a file of its own that defines one struct
 * lt_kernel, on every machine: where the kernel cannot be compiled, its
 * 'blocks' is NULL.  Kernels for one kind of CPU are in a folder of that name
 * (x86/, arm/), their checks for it in cpu/.  The order of choice is the table in
 * lt_sha256.c, which also has the portable kernel, the oracle of the others.
 */
#ifndef LT_KERNELS_H
#define LT_KERNELS_H

#include "lt_common.h"

struct lt_kernel {
	const char *name;
	bool (*runs_here)(void);	/* does the CPU, does the OS allow it */
	/* NULL: not built, and nothing else of the kernel is looked at. */
	void (*blocks)(u32 h[8], const u8 *in, size_t n_blocks);
	/* NULL: no two-lane form; then two calls of 'blocks' are as good. */
	void (*blocks2)(u32 ha[8], const u8 *a, u32 hb[8], const u8 *b,
			size_t n_blocks);
};

/* FIPS 180-4 §4.2.2, aligned to 16 bytes. */
extern const u32 lt_sha256_k[64];

extern const struct lt_kernel lt_kernel_shani;
extern const struct lt_kernel lt_kernel_armv8;
extern const struct lt_kernel lt_kernel_openssl;

#endif
