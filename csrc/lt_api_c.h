/*
 * lt_api_c.h: lt_api.h for C.
 *
 * cffi reads lt_api.h as it stands, so that one can neither guard itself nor
 * include what it needs.  Include this by what defines or uses something of
 * it; a header that only needs a few types has lt_common.h.
 */
#ifndef LT_API_C_H
#define LT_API_C_H

#include <stddef.h>
#include <stdint.h>

#include "lt_api.h"

#endif
