/*
 * lt_crc32.h: the CRC-32 of gzip (RFC 1952 §8), by the fastest there is.
 */
#ifndef LT_CRC32_H
#define LT_CRC32_H

#include "lt_common.h"

/* Of the bytes that gave 'crc' and these after them; begin with 0. */
u32 lt_crc32(u32 crc, const u8 *p, size_t nbytes);

#endif
