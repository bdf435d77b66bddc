/*
 * lt_codec.h: one decoder for all formats, reused stream after stream.
 *
 *	lt_codec_begin(c, ...);
 *	lt_codec_step(c, ...);		as often as there is input or output
 *	lt_codec_finish(c);		the input has ended
 *
 * It decodes and hashes nothing: the contract of step and finish is that of
 * lt_tee_feed and lt_tee_finish in lt_api.h, without the digests.  What a
 * format needs (windows, tables) is made on first use and stays allocated
 * until lt_codec_free.  One thread at a time.
 */
#ifndef LT_CODEC_H
#define LT_CODEC_H

#include "lt_common.h"

/* Largest zstd window any stream may ask for without leave: RFC 8878 §3.1.1.1.2
 * recommends that decoders support at least 8 MiB. */
#define LT_WINDOW_FREE ((u64)8 << 20)

/* A positive enum lt_status of this header alone. */
enum { LT_WINDOW_WAIT = 1 };

typedef struct lt_codec lt_codec;

lt_codec *lt_codec_new(void);
void lt_codec_free(lt_codec *c);

/* A new stream begins, whatever became of the last.  LT_ERR_UNSUPPORTED or
 * LT_ERR_MEMORY: there is none, and step will say so again. */
int lt_codec_begin(lt_codec *c, int format, bool check_crc, bool grant_all,
		   u64 out_budget, u64 window_max);

/*
 * LT_WINDOW_WAIT may come before a zstd frame whose window is above
 * LT_WINDOW_FREE (and within window_max): nothing of the frame's body was read
 * and nothing is lost; call lt_codec_grant_window, then step again.  After
 * lt_codec_begin with grant_all it never does.
 */
int lt_codec_step(lt_codec *c, const u8 *in, size_t in_nbytes,
		  u8 *out, size_t out_nbytes_avail,
		  size_t *in_nbytes_ret, size_t *out_nbytes_ret);
int lt_codec_finish(lt_codec *c);

/* As lt_tee_error_offset and lt_tee_error_window. */
u64 lt_codec_error_offset(const lt_codec *c);
u64 lt_codec_error_window(const lt_codec *c);
/* As lt_result.format. */
int lt_codec_format(const lt_codec *c);
/* As lt_result.n_members, so far. */
u64 lt_codec_n_members(const lt_codec *c);

/* Leave for the rest of this stream. */
void lt_codec_grant_window(lt_codec *c);
/* Give back the memory that the decoder keeps beyond LT_WINDOW_FREE (none
 * unless a large window was granted).  Between two streams. */
void lt_codec_trim(lt_codec *c);

#endif
