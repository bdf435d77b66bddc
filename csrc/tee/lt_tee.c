/*
 * lt_tee.c: one stream, one thread: hash, decode, hash (lt_api.h says what
 * each call promises).
 *
 * Each call decodes first and then hashes what was taken and what was made,
 * side by side in two lanes: both are still in the cache.  A stored stream is
 * hashed once, as its two digests are the same.
 */
#include "codec/lt_codec.h"
#include "hash/lt_sha256.h"
#include "lt_api_c.h"

struct lt_tee {
	lt_codec *codec;
	int format;
	int status;
	u64 in_total;
	u64 out_total;
	struct lt_sha256_state in_hash;
	struct lt_sha256_state out_hash;
};

lt_tee *lt_tee_new(int format, int check_crc, uint64_t out_budget,
		   uint64_t window_max)
{
	lt_tee *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->codec = lt_codec_new();
	if (!t->codec || lt_codec_begin(t->codec, format, check_crc != 0, true,
					out_budget, window_max) != LT_OK) {
		lt_tee_free(t);
		return NULL;
	}
	t->format = format;
	lt_sha256_init(&t->in_hash);
	lt_sha256_init(&t->out_hash);
	return t;
}

void lt_tee_free(lt_tee *t)
{
	if (t)
		lt_codec_free(t->codec);
	free(t);
}

int lt_tee_feed(lt_tee *t, const void *in, size_t in_nbytes,
		void *out, size_t out_nbytes_avail,
		size_t *in_nbytes_ret, size_t *out_nbytes_ret)
{
	int ret;

	*in_nbytes_ret = 0;
	*out_nbytes_ret = 0;
	if (t->status < 0)
		return t->status;
	ret = lt_codec_step(t->codec, in, in_nbytes, out, out_nbytes_avail,
			    in_nbytes_ret, out_nbytes_ret);
	t->in_total += *in_nbytes_ret;
	t->out_total += *out_nbytes_ret;
	if (t->format == LT_FORMAT_NONE)
		lt_sha256_update(&t->in_hash, in, *in_nbytes_ret);
	else
		lt_sha256_update2(&t->in_hash, in, *in_nbytes_ret,
				  &t->out_hash, out, *out_nbytes_ret);
	t->status = ret;
	return ret;
}

int lt_tee_finish(lt_tee *t, struct lt_result *ret)
{
	int status = t->status < 0 ? t->status : lt_codec_finish(t->codec);

	/* A second finish would hash the padding again. */
	t->status = status < 0 ? status : LT_ERR_MISUSE;
	*ret = (struct lt_result){
		.status = status,
		.error_offset = lt_codec_error_offset(t->codec),
		.window = lt_codec_error_window(t->codec),
	};
	if (status != LT_OK)
		return status;
	ret->in_total = t->in_total;
	ret->out_total = t->out_total;
	ret->n_members = lt_codec_n_members(t->codec);
	ret->format = lt_codec_format(t->codec);
	lt_sha256_final(&t->in_hash, ret->in_digest);
	if (t->format == LT_FORMAT_NONE)
		memcpy(ret->out_digest, ret->in_digest, 32);
	else
		lt_sha256_final(&t->out_hash, ret->out_digest);
	return LT_OK;
}

uint64_t lt_tee_error_offset(const lt_tee *t)
{
	return lt_codec_error_offset(t->codec);
}

uint64_t lt_tee_error_window(const lt_tee *t)
{
	return lt_codec_error_window(t->codec);
}
