/*
 * lt_deflate_tables.h: from the lengths of codes, which a header has, to the
 * tables that decode them (lt_deflate.h says what is in these).
 */
#ifndef LT_DEFLATE_TABLES_H
#define LT_DEFLATE_TABLES_H

#include "codec/inflate/lt_deflate.h"

/* No length in 'lens' and in 'precode_lens' may be more. */
#define LT_CODE_BITS_MAX	15
#define LT_PRECODE_BITS		7

/* Of 'precode_lens'; of 'lens'.  LT_ERR_DATA: they are of no code. */
int lt_deflate_build_precode(struct lt_deflate *d);
int lt_deflate_build_dynamic(struct lt_deflate *d);

/* Those of RFC 1951 §3.2.6. */
void lt_deflate_use_fixed(struct lt_deflate *d);

#endif
