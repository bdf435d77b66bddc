/*
 * lt_tee.h: internal header of the C core.
 *
 * Three small parts, each usable and testable alone: the hash (lt_sha256*.c),
 * the codec (lt_codec.c over lt_gzip.c and lt_zstd.c) and, on top, the tee
 * (lt_tee.c, one thread) or the pool (lt_pool*.c, many).
 */
#ifndef LT_TEE_H
#define LT_TEE_H

#include "lt_common.h"
#include "lt_api.h"

#define LT_ABI 2u

/* Largest zstd window any stream may ask for without leave: RFC 8878 §3.1.1.1.2
 * recommends that decoders support at least 8 MiB. */
#define LT_WINDOW_FREE ((u64)8 << 20)
/* ISA-L counts in 32 bits: never hand it more than this in one call. */
#define LT_STEP_MAX ((size_t)1 << 20)

/* --- SHA-256 --------------------------------------------------------- */

/* The state is the same for all kernels, so that any two streams can be
 * hashed in two lanes.  'fill' bytes of an unfinished block wait in 'block'. */
struct lt_sha256_state {
	u32 h[8];
	u64 nbytes;
	u32 fill;
	u8 block[64];
};

struct lt_kernel {
	const char *name;
	bool (*runs_here)(void);
	void (*blocks)(u32 h[8], const u8 *in, size_t n_blocks);
	/* NULL: no two-lane form; then two calls of 'blocks' are as good. */
	void (*blocks2)(u32 ha[8], const u8 *a, u32 hb[8], const u8 *b,
			size_t n_blocks);
};

void lt_sha256_init(struct lt_sha256_state *s);
void lt_sha256_update(struct lt_sha256_state *s, const u8 *in, size_t in_nbytes);
/* All of both; the common part goes through the two-lane kernel. */
void lt_sha256_update2(struct lt_sha256_state *a, const u8 *a_in, size_t a_nbytes,
		       struct lt_sha256_state *b, const u8 *b_in, size_t b_nbytes);
void lt_sha256_final(struct lt_sha256_state *s, u8 digest_ret[32]);

/* --- Codec ----------------------------------------------------------- */

/* One decoder, reused for stream after stream (its window and tables stay
 * allocated).  Same contract as lt_tee_feed / lt_tee_finish, without hashes.
 *
 * lt_codec_step may return LT_WINDOW_WAIT before a zstd frame whose window is
 * above LT_WINDOW_FREE (and within window_max): nothing of the frame's body
 * was read and nothing is lost; call lt_codec_grant_window, then step again.
 * After lt_codec_begin with grant_all != 0 it never does. */
typedef struct lt_codec lt_codec;
lt_codec *lt_codec_new(void);
void lt_codec_free(lt_codec *c);
int lt_codec_begin(lt_codec *c, int format, bool check_crc, bool grant_all,
		   u64 out_budget, u64 window_max);
int lt_codec_step(lt_codec *c, const u8 *in, size_t in_nbytes,
		  u8 *out, size_t out_nbytes_avail,
		  size_t *in_nbytes_ret, size_t *out_nbytes_ret);
int lt_codec_finish(lt_codec *c);
u64 lt_codec_error_offset(const lt_codec *c);
void lt_codec_grant_window(lt_codec *c);
/* Memory the decoder keeps beyond LT_WINDOW_FREE (0 unless a large window was
 * granted); lt_codec_trim gives it back. */
void lt_codec_trim(lt_codec *c);

#endif
