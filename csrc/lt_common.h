/* lt_common.h: the few words every file of the core shares. */
#ifndef LT_COMMON_H
#define LT_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define LT_TARGET(x)	__attribute__((target(x)))
#define LT_ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static inline size_t lt_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline u32 lt_le32(const u8 *p)
{
	return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

#endif
