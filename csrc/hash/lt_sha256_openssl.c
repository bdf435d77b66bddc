/*
 * lt_sha256_openssl.c: libcrypto's SHA-256 as a block kernel.
 *
 * The best choice where we have no kernel of our own (x86 without SHA-NI:
 * libcrypto has AVX2 code there).  Only the low-level API lets us
 * carry the state in and out, so that a stream may change kernels between
 * blocks; OpenSSL 3 marks it deprecated, and asking for the 1.1 API keeps the
 * build silent without a compiler flag.
 */
#include "hash/lt_kernels.h"

#ifdef LT_HAVE_OPENSSL
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>

_Static_assert(sizeof(((SHA256_CTX *)NULL)->h) == 8 * sizeof(u32),
	       "the state is copied as it is");

static void blocks_openssl(u32 h[8], const u8 *in, size_t n_blocks)
{
	SHA256_CTX ctx = {0};

	/* With no partial block pending, Update goes straight to blocks. */
	ctx.md_len = SHA256_DIGEST_LENGTH;
	memcpy(ctx.h, h, sizeof(ctx.h));
	SHA256_Update(&ctx, in, n_blocks * 64);
	memcpy(h, ctx.h, sizeof(ctx.h));
}

#ifdef LT_STATIC_OPENSSL
/*
 * An archive of libcrypto for x86 does so in code that it puts into section
 * .init, which runs only where a linker also adds the C library's crti.o.
 * Not all do; twice does no harm.
 */
void OPENSSL_cpuid_setup(void);

__attribute__((constructor)) static void look_at_the_cpu(void)
{
	OPENSSL_cpuid_setup();
}
#endif

/* libcrypto looks at the CPU by itself. */
static bool always(void)
{
	return true;
}

const struct lt_kernel lt_kernel_openssl = {
	.name = "openssl",
	.runs_here = always,
	.blocks = blocks_openssl,
};
#else
const struct lt_kernel lt_kernel_openssl = {.name = "openssl"};
#endif
