/*
 * lt_crc32.c: CRC-32 by ISA-L, or by zlib in a build without it.
 */
#include "codec/lt_crc32.h"

#ifdef LT_HAVE_ISAL
#include <isa-l/crc.h>

#include "cpu/lt_cpu.h"

/* libisal's AVX CRC returns with the upper halves of the vector registers in
 * use.  Every SSE instruction after that, SHA-NI's among them, has to merge
 * with them: hashing 2.2 GB took 1.56 s instead of 0.78 s (libisal 2.30 and
 * its AVX-512 kernel, Zen 5). */
#if defined(__x86_64__)
LT_TARGET("avx") static void clear_upper_halves(void)
{
	__builtin_ia32_vzeroupper();
}
#else
static void clear_upper_halves(void)
{
}
#endif

u32 lt_crc32(u32 crc, const u8 *p, size_t nbytes)
{
	if (nbytes == 0)
		return crc;
	crc = crc32_gzip_refl(crc, p, nbytes);
	if (lt_cpu_has_avx())
		clear_upper_halves();
	return crc;
}

#else	/* zlib */
#include <zlib.h>

/* zlib counts in 32 bits. */
#define STEP_MAX ((size_t)1 << 30)

u32 lt_crc32(u32 crc, const u8 *p, size_t nbytes)
{
	for (; nbytes; ) {
		const uInt n = (uInt)lt_min(nbytes, STEP_MAX);

		crc = (u32)crc32(crc, p, n);
		p += n;
		nbytes -= n;
	}
	return crc;
}
#endif
