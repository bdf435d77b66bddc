/*
 * lt_sha256_openssl.c: libcrypto's SHA-256 as a block kernel.
 *
 * The best choice where we have no kernel of our own (ARMv8, x86 without
 * SHA-NI: libcrypto has AVX2 code there).  Only the low-level API lets us
 * carry the state in and out, so that a stream may change kernels between
 * blocks; OpenSSL 3 marks it deprecated, and asking for the 1.1 API keeps the
 * build silent without a compiler flag.
 */
#ifdef LT_HAVE_OPENSSL
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>

#include "lt_sha256.h"

_Static_assert(sizeof(((SHA256_CTX *)NULL)->h) == 8 * sizeof(u32),
	       "the state is copied as it is");

void lt_sha256_blocks_openssl(u32 h[8], const u8 *in, size_t n_blocks)
{
	SHA256_CTX ctx = {0};

	/* With no partial block pending, Update goes straight to blocks. */
	ctx.md_len = SHA256_DIGEST_LENGTH;
	memcpy(ctx.h, h, sizeof(ctx.h));
	SHA256_Update(&ctx, in, n_blocks * 64);
	memcpy(h, ctx.h, sizeof(ctx.h));
}
#else
typedef int lt_no_openssl;	/* ISO C forbids an empty file */
#endif
