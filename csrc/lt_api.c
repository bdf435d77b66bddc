/*
 * lt_api.c: what this build is.
 */
#include "lt_api_c.h"

#ifdef LT_HAVE_ISAL
#include <isa-l.h>
#endif
#ifdef LT_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef LT_HAVE_OPENSSL
#include <openssl/opensslv.h>
#endif
#include <zstd.h>

#define TEXT_(x)	#x
#define TEXT(x)		TEXT_(x)

const char *lt_build(void)
{
	return
#ifdef LT_HAVE_ISAL
		"ISA-L " TEXT(ISAL_MAJOR_VERSION) "." TEXT(ISAL_MINOR_VERSION)
		"." TEXT(ISAL_PATCH_VERSION) ", "
#endif
#ifdef LT_HAVE_ZLIB
		"zlib " ZLIB_VERSION ", "
#endif
#ifdef LT_HAVE_OPENSSL
		OPENSSL_VERSION_TEXT ", "
#endif
		"libzstd " ZSTD_VERSION_STRING ", compiled by "
#if defined(__clang__)
		"clang " __clang_version__;
#else
		"gcc " __VERSION__;
#endif
}
