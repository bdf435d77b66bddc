/* lt_zstd.h: what the pieces of a zstd file ask its decoder (lt_ahead_zstd.c). */
#ifndef LT_ZSTD_H
#define LT_ZSTD_H

#include "codec/lt_format.h"

/* No frame is open, all output of the last was taken, and the next ones may
 * have windows of 'window' bytes. */
bool lt_zstd_between(const struct lt_decoder *d, u64 window);

extern const struct lt_ahead_ops lt_ahead_zstd;

#endif
