/* lt_sha256.h: what the SHA-256 kernels share; see lt_sha256.c. */
#ifndef LT_SHA256_H
#define LT_SHA256_H

#include "lt_tee.h"

extern const u32 lt_sha256_k[64];

#if defined(__x86_64__)
#define LT_HAVE_SHANI 1
void lt_sha256_blocks_shani(u32 h[8], const u8 *in, size_t n_blocks);
void lt_sha256_blocks2_shani(u32 ha[8], const u8 *a, u32 hb[8], const u8 *b,
			     size_t n_blocks);
#endif

#ifdef LT_HAVE_OPENSSL
void lt_sha256_blocks_openssl(u32 h[8], const u8 *in, size_t n_blocks);
#endif

#endif
