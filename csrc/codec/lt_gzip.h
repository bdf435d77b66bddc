/* lt_gzip.h: what the pieces of a member ask its decoder (lt_ahead_deflate.c). */
#ifndef LT_GZIP_H
#define LT_GZIP_H

#include "codec/lt_format.h"

/* What decodes the body of the open member; NULL: no body is at hand. */
struct lt_inflate *lt_gzip_body(const struct lt_decoder *d);
/* 'nbytes' bytes of the body are at 'out'. */
void lt_gzip_made(struct lt_decoder *d, const u8 *out, size_t nbytes);

extern const struct lt_ahead_ops lt_ahead_deflate;

#endif
