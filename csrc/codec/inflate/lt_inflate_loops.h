/*
 * lt_inflate_loops.h: the fast loop of lt_inflate_loop.h for all kinds of CPU:
 * fast_portable, and fast_bmi2 on x86-64.
 */
#define LOOP(name)	name##_portable
#define LOOP_TARGET
#define INDEX(buf, entry)	((buf) >> ((entry) & 63))
#define DIST_INDEX(i)	((i) & ((1 << LT_DIST_BITS) - 1))
#define LITLEN_INDEX(i)	((i) & ((1 << LT_LITLEN_BITS) - 1))
#define LOW(buf, n)	((buf) & (((u64)1 << ((n) & 63)) - 1))
#include "codec/inflate/lt_inflate_loop.h"

#if defined(__x86_64__)
#define LOOP(name)	name##_bmi2
#define LOOP_TARGET	LT_TARGET("bmi,bmi2")
#define INDEX(buf, entry)	__builtin_ia32_bextr_u64(buf, entry)
#define DIST_INDEX(i)	(i)
#define LITLEN_INDEX(i)	(i)
#define LOW(buf, n)	__builtin_ia32_bzhi_di(buf, n)
#include "codec/inflate/lt_inflate_loop.h"
#endif
