/*
 * test_codec.c: what lt_codec and lt_tee promise besides decoding, which
 * replay.c covers: budgets, leave for large windows, reuse, misuse, and the
 * choice of an inflater.  It names the inflaters that it has tried.
 */
#include <stdio.h>

#include "codec/ahead/lt_ahead.h"
#include "codec/lt_codec.h"
#include "codec/lt_format.h"
#include "lt_api_c.h"

#define CHECK(x) do {							\
	if (!(x)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);	\
		exit(1);						\
	}								\
} while (0)

/* "hello" as gzip (stored block) and as zstd with windows of 1 KiB, 9 MiB and
 * 128 MiB (raw block). */
static const u8 gz[] = {
	0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 5, 0, 0xfa, 0xff,
	'h', 'e', 'l', 'l', 'o', 0x86, 0xa6, 0x10, 0x36, 5, 0, 0, 0,
};
static const u8 zs[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0x29, 0, 0,
			'h', 'e', 'l', 'l', 'o'};
static const u8 zs9[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0x69, 0x29, 0, 0,
			 'h', 'e', 'l', 'l', 'o'};
static const u8 zs128[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0x88, 0x29, 0, 0,
			   'h', 'e', 'l', 'l', 'o'};

static const u64 no_limit = (u64)1 << 40;
static const u64 window_max = (u64)128 << 20;

static int decode(lt_codec *c, const u8 *in, size_t nbytes, u8 out[8],
		  size_t *out_nbytes)
{
	size_t in_taken;
	int ret = lt_codec_step(c, in, nbytes, out, 8, &in_taken, out_nbytes);

	if (ret != LT_OK)
		return ret;
	CHECK(in_taken == nbytes);
	return lt_codec_finish(c);
}

static void a_codec_is_reused_for_any_format(void)
{
	lt_codec *c = lt_codec_new();
	u8 out[8];
	size_t n;

	CHECK(c);
	CHECK(decode(c, gz, sizeof(gz), out, &n) == LT_ERR_MISUSE);
	for (int round = 0; round < 3; round++) {
		CHECK(!lt_codec_begin(c, LT_FORMAT_GZIP, true, false, no_limit,
				      window_max));
		CHECK(decode(c, gz, sizeof(gz), out, &n) == LT_OK);
		CHECK(n == 5 && !memcmp(out, "hello", 5));
		CHECK(!lt_codec_begin(c, LT_FORMAT_NONE, true, false, no_limit,
				      window_max));
		CHECK(decode(c, (const u8 *)"hello", 5, out, &n) == LT_OK);
		CHECK(n == 5 && !memcmp(out, "hello", 5));
		/* A stream left in the middle, or failed, does no harm. */
		CHECK(!lt_codec_begin(c, LT_FORMAT_GZIP, true, false, no_limit,
				      window_max));
		CHECK(decode(c, gz, 14, out, &n) == LT_ERR_TRUNCATED);
		CHECK(lt_codec_error_offset(c) == 14);
		CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
				      window_max));
		CHECK(decode(c, zs, 11, out, &n) == LT_ERR_TRUNCATED);
		CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
				      window_max));
		CHECK(decode(c, zs, sizeof(zs), out, &n) == LT_OK);
		CHECK(n == 5 && !memcmp(out, "hello", 5));
		lt_codec_trim(c);
	}
	CHECK(lt_codec_begin(c, 77, true, false, no_limit, window_max) ==
	      LT_ERR_UNSUPPORTED);
	CHECK(decode(c, gz, sizeof(gz), out, &n) == LT_ERR_UNSUPPORTED);
	lt_codec_free(c);
	lt_codec_free(NULL);
	lt_tee_free(NULL);
	CHECK(!lt_tee_new(77, 1, no_limit, window_max));
}

static void a_format_that_was_named_takes_no_other(void)
{
	lt_codec *c = lt_codec_new();
	u8 out[8];
	size_t n;

	CHECK(c);
	CHECK(!lt_codec_begin(c, LT_FORMAT_GZIP, true, false, no_limit,
			      window_max));
	CHECK(decode(c, zs, sizeof(zs), out, &n) == LT_ERR_HEADER);
	CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
			      window_max));
	CHECK(decode(c, gz, sizeof(gz), out, &n) == LT_ERR_HEADER);
	lt_codec_free(c);
}

/* Whatever came before, and however often. */
static void the_first_byte_tells_which_format_it_is(void)
{
	static const u8 skip[] = {0x5a, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'};
	lt_codec *c = lt_codec_new();
	u8 out[8];
	size_t n;

	CHECK(c);
	for (int round = 0; round < 3; round++) {
		const struct {
			const u8 *in;
			size_t nbytes;
			int status, format;
			size_t made;
		} all[] = {
			{gz, sizeof(gz), LT_OK, LT_FORMAT_GZIP, 5},
			{zs, sizeof(zs), LT_OK, LT_FORMAT_ZSTD, 5},
			{skip, sizeof(skip), LT_OK, LT_FORMAT_ZSTD, 0},
			{gz, 0, LT_OK, LT_FORMAT_DETECT, 0},
			{gz + 1, 5, LT_ERR_HEADER, LT_FORMAT_DETECT, 0},
			{gz, 1, LT_ERR_TRUNCATED, LT_FORMAT_GZIP, 0},
			{zs, 3, LT_ERR_TRUNCATED, LT_FORMAT_ZSTD, 0},
		};

		for (size_t i = 0; i < LT_ARRAY_SIZE(all); i++) {
			CHECK(!lt_codec_begin(c, LT_FORMAT_DETECT, true, false,
					      no_limit, window_max));
			CHECK(decode(c, all[i].in, all[i].nbytes, out, &n) ==
			      all[i].status);
			CHECK(lt_codec_format(c) == all[i].format);
			CHECK(n == all[i].made);
			CHECK(lt_codec_error_offset(c) ==
			      (all[i].status == LT_ERR_TRUNCATED ? all[i].nbytes
								 : 0));
		}
	}
	lt_codec_free(c);
}

static void a_refused_window_is_told(void)
{
	lt_codec *c = lt_codec_new();
	u8 out[8];
	size_t n;

	CHECK(c);
	CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, true, no_limit,
			      window_max - 1));
	CHECK(decode(c, zs128, sizeof(zs128), out, &n) == LT_ERR_WINDOW);
	CHECK(lt_codec_error_window(c) == window_max);
	/* Nothing of it is said of the next stream. */
	CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, true, no_limit,
			      window_max));
	CHECK(decode(c, zs128, sizeof(zs128), out, &n) == LT_OK);
	CHECK(lt_codec_error_window(c) == 0);
	lt_codec_free(c);
}

static void every_format_has_every_operation(void)
{
	for (int format = LT_FORMAT_NONE; format < LT_FORMAT_DETECT; format++) {
		const struct lt_format_ops *ops = lt_format_ops(format);

		CHECK(ops);
		CHECK(ops->new && ops->free && ops->reset && ops->step &&
		      ops->finish && ops->grant_window && ops->trim);
		/* Eight pointers, of which 'ahead' may be NULL: a ninth belongs
		 * into this list. */
		CHECK(sizeof(*ops) == 8 * sizeof(void (*)(void)));
	}
	CHECK(!lt_format_ops(-1) && !lt_format_ops(LT_FORMAT_DETECT));
}

struct stream {
	int format;
	const u8 *in;
	size_t nbytes;
};

static void decode_with_budget(const struct stream *s, u64 budget, size_t step)
{
	const int want = budget < 5 ? LT_ERR_OUT_BUDGET : LT_OK;
	lt_codec *c = lt_codec_new();
	size_t pos = 0, total = 0;
	int ret = LT_OK;

	CHECK(c);
	CHECK(!lt_codec_begin(c, s->format, true, false, budget, window_max));
	while (pos < s->nbytes && ret == LT_OK) {
		size_t n = lt_min(step, s->nbytes - pos), taken, made;
		u8 out[8];

		ret = lt_codec_step(c, s->in + pos, n, out, 8, &taken, &made);
		pos += taken;
		total += made;
	}
	if (ret == LT_OK)
		ret = lt_codec_finish(c);
	CHECK(ret == want);
	CHECK(total == (budget < 5 ? budget : 5));
	CHECK(lt_codec_error_offset(c) == 0);
	lt_codec_free(c);
}

static void the_output_budget_is_exact(void)
{
	static const struct stream streams[] = {
		{LT_FORMAT_NONE, (const u8 *)"hello", 5},
		{LT_FORMAT_GZIP, gz, sizeof(gz)},
		{LT_FORMAT_ZSTD, zs, sizeof(zs)},
	};

	for (size_t i = 0; i < LT_ARRAY_SIZE(streams); i++)
		for (u64 budget = 0; budget < 7; budget++)
			for (size_t n = 1; n <= streams[i].nbytes; n++)
				decode_with_budget(&streams[i], budget, n);
}

static void a_large_window_waits_for_leave(void)
{
	const u8 *const frames[] = {zs9, zs128};

	for (size_t i = 0; i < LT_ARRAY_SIZE(frames); i++) {
		lt_codec *c = lt_codec_new();
		size_t taken, made, pos = 0;
		u8 out[8];

		CHECK(c);
		CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
				      window_max));
		CHECK(lt_codec_step(c, zs, sizeof(zs), out, 8, &taken, &made) ==
		      LT_OK);
		CHECK(made == 5);
		CHECK(lt_codec_step(c, frames[i], sizeof(zs9), out, 8, &taken,
				    &made) == LT_WINDOW_WAIT);
		CHECK(made == 0 && taken == 6);
		pos = taken;
		CHECK(lt_codec_step(c, frames[i] + pos, 1, out, 8, &taken,
				    &made) == LT_WINDOW_WAIT);
		CHECK(made == 0 && taken == 0);
		lt_codec_grant_window(c);
		CHECK(lt_codec_step(c, frames[i] + pos, sizeof(zs9) - pos, out,
				    8, &taken, &made) == LT_OK);
		CHECK(made == 5 && !memcmp(out, "hello", 5));
		/* The leave holds for the rest of the stream ... */
		CHECK(lt_codec_step(c, frames[i], sizeof(zs9), out, 8, &taken,
				    &made) == LT_OK);
		CHECK(made == 5);
		CHECK(lt_codec_finish(c) == LT_OK);
		lt_codec_trim(c);
		/* ... but not for the next one. */
		CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
				      window_max));
		CHECK(lt_codec_step(c, frames[i], sizeof(zs9), out, 8, &taken,
				    &made) == LT_WINDOW_WAIT);
		CHECK(lt_codec_finish(c) == LT_ERR_TRUNCATED);
		CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, true, no_limit,
				      window_max));
		CHECK(decode(c, frames[i], sizeof(zs9), out, &made) == LT_OK);
		lt_codec_free(c);
	}
}

static u64 members(lt_codec *c, int format, const u8 *in, size_t nbytes,
		   int copies)
{
	CHECK(!lt_codec_begin(c, format, true, true, no_limit, window_max));
	for (int i = 0; i < copies; i++) {
		size_t taken, made;
		u8 out[8];

		CHECK(lt_codec_step(c, in, nbytes, out, 8, &taken, &made) ==
		      LT_OK);
		CHECK(taken == nbytes && made == 5);
	}
	CHECK(lt_codec_finish(c) == LT_OK);
	return lt_codec_n_members(c);
}

static void members_are_counted(void)
{
	lt_codec *c = lt_codec_new();
	size_t n;
	u8 out[8];

	CHECK(c);
	CHECK(lt_codec_n_members(c) == 0);
	for (int i = 0; i < 4; i++) {
		const u64 n_parts = (u64)i;

		CHECK(members(c, LT_FORMAT_GZIP, gz, sizeof(gz), i) == n_parts);
		CHECK(members(c, LT_FORMAT_ZSTD, zs, sizeof(zs), i) == n_parts);
		CHECK(members(c, LT_FORMAT_NONE, (const u8 *)"hello", 5, i) ==
		      (n_parts ? 1 : 0));
	}
	/* Not the one that is cut, and none of the stream before. */
	CHECK(!lt_codec_begin(c, LT_FORMAT_GZIP, true, true, no_limit,
			      window_max));
	CHECK(decode(c, gz, 14, out, &n) == LT_ERR_TRUNCATED);
	CHECK(lt_codec_n_members(c) == 0);
	lt_codec_free(c);
}

static void an_inflater_is_chosen_by_name(void)
{
	const char *first = lt_inflater_current(), *name;
	size_t n, n_built = 0;

	CHECK(first);
	CHECK(lt_inflater_use("zlip") == LT_ERR_UNKNOWN_NAME);
	CHECK(lt_inflater_use("") == LT_ERR_UNKNOWN_NAME);
	CHECK(!strcmp(lt_inflater_current(), first));
	for (n = 0; (name = lt_inflater_name(n)); n++) {
		const char *before = lt_inflater_current();
		int ret = lt_inflater_use(name);

		CHECK(ret == lt_inflater_state(n));
		CHECK(ret == LT_OK || ret == LT_ERR_NOT_BUILT);
		n_built += ret == LT_OK;
		CHECK(!strcmp(lt_inflater_current(),
			      ret == LT_OK ? name : before));
	}
	CHECK(n_built > 0);
	CHECK(lt_inflater_state(n) == LT_ERR_UNKNOWN_NAME);
	CHECK(!lt_inflater_name(n + 5));
#ifdef LT_HAVE_ISAL
	CHECK(lt_inflater_use("isal") == LT_OK);
#else
	CHECK(lt_inflater_use("isal") == LT_ERR_NOT_BUILT);
#endif
#ifdef LT_HAVE_ZLIB
	CHECK(lt_inflater_use("zlib") == LT_OK);
#else
	CHECK(lt_inflater_use("zlib") == LT_ERR_NOT_BUILT);
#endif
	CHECK(lt_inflater_use("own") == LT_OK);
	CHECK(lt_inflater_use("own-portable") == LT_OK);
	CHECK(lt_inflater_use(NULL) == LT_OK);
	CHECK(!strcmp(lt_inflater_current(), first));
}

/* A codec that is kept has a decoder of the inflater before. */
static void a_stream_keeps_its_inflater_and_the_next_has_the_new_one(void)
{
	lt_codec *c = lt_codec_new();
	const size_t half = 12;
	size_t taken, made;
	u8 out[8];

	CHECK(c);
	for (size_t i = 0; i < 20; i++) {
		const size_t n = i % 2;

		CHECK(!lt_codec_begin(c, LT_FORMAT_GZIP, true, false, no_limit,
				      window_max));
		CHECK(lt_codec_step(c, gz, half, out, 8, &taken, &made) ==
		      LT_OK);
		CHECK(taken == half && made == 0);
		if (lt_inflater_state(n) == LT_OK)
			CHECK(lt_inflater_use(lt_inflater_name(n)) == LT_OK);
		CHECK(decode(c, gz + half, sizeof(gz) - half, out, &made) ==
		      LT_OK);
		CHECK(made == 5 && !memcmp(out, "hello", 5));
	}
	lt_codec_free(c);
	CHECK(lt_inflater_use(NULL) == LT_OK);
}

static void finish_before_all_output_was_taken_is_misuse(void)
{
	struct lt_result r;
	u8 out[8];
	size_t taken, made;
	lt_tee *t = lt_tee_new(LT_FORMAT_GZIP, 1, no_limit, window_max);

	CHECK(t);
	CHECK(lt_tee_feed(t, gz, sizeof(gz), out, 3, &taken, &made) == LT_OK);
	CHECK(made == 3);
	/* With ISA-L all input may be in; with others it is truncated as well. */
	CHECK(lt_tee_finish(t, &r) < 0);
	CHECK(r.status < 0 && !r.in_total && !r.out_total && !r.n_members);
	CHECK(lt_tee_feed(t, gz, 1, out, 8, &taken, &made) < 0);
	CHECK(taken == 0 && made == 0);
	lt_tee_free(t);
}

static void a_tee_is_finished_once(void)
{
	struct lt_result r;
	u8 out[8], want[32];
	size_t taken, made;
	lt_tee *t = lt_tee_new(LT_FORMAT_GZIP, 1, no_limit, window_max);

	CHECK(t);
	CHECK(lt_tee_feed(t, gz, sizeof(gz), out, 8, &taken, &made) == LT_OK);
	/* However often it is asked, there is nothing more. */
	for (int i = 0; i < 100; i++) {
		CHECK(lt_tee_feed(t, NULL, 0, out, 8, &taken, &made) == LT_OK);
		CHECK(taken == 0 && made == 0);
	}
	CHECK(lt_tee_finish(t, &r) == LT_OK);
	CHECK(r.status == LT_OK && r.n_members == 1);
	CHECK(r.in_total == sizeof(gz) && r.out_total == 5);
	lt_sha256(gz, sizeof(gz), want);
	CHECK(!memcmp(r.in_digest, want, 32));
	lt_sha256("hello", 5, want);
	CHECK(!memcmp(r.out_digest, want, 32));
	CHECK(lt_tee_finish(t, &r) == LT_ERR_MISUSE);
	lt_tee_free(t);
}

/* A piece was decoded without knowing how large a window its stream allows. */
static void a_piece_may_have_no_larger_window_than_its_stream(void)
{
	static const u8 frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0x50, 0x29, 0, 0,
				   'h', 'e', 'l', 'l', 'o'};
	const u64 window = (u64)1 << 20;
	lt_codec *c = lt_codec_new();
	lt_ahead *a = lt_ahead_new();
	u8 out[8];
	size_t n;

	CHECK(c && a);
	CHECK(lt_ahead_decode(a, LT_FORMAT_ZSTD, true, 0, frame,
			      sizeof(frame)));
	CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
			      window - 1));
	CHECK(!lt_codec_adopt(c, a));
	CHECK(decode(c, frame, sizeof(frame), out, &n) == LT_ERR_WINDOW);
	CHECK(!lt_codec_begin(c, LT_FORMAT_ZSTD, true, false, no_limit,
			      window));
	CHECK(lt_codec_adopt(c, a));
	CHECK(lt_codec_take(c, a, out, sizeof(out), &n));
	CHECK(n == 5 && !memcmp(out, "hello", 5));
	CHECK(lt_codec_finish(c) == LT_OK && lt_codec_n_members(c) == 1);
	lt_ahead_free(a);
	lt_codec_free(c);
}

/* libzstd takes 16 calls without progress for a bug of its caller. */
static void asking_in_vain_is_no_error(void)
{
	size_t taken, made;
	u8 out[8];
	lt_tee *t = lt_tee_new(LT_FORMAT_ZSTD, 1, no_limit, window_max);

	CHECK(t);
	for (size_t pos = 0; pos < sizeof(zs); pos++) {
		for (int i = 0; i < 40; i++) {
			CHECK(lt_tee_feed(t, NULL, 0, out, 8, &taken, &made) ==
			      LT_OK);
			CHECK(taken == 0 && made == 0);
		}
		CHECK(lt_tee_feed(t, zs + pos, 1, out, 8, &taken, &made) ==
		      LT_OK);
		CHECK(taken == 1);
	}
	lt_tee_free(t);
}

int main(void)
{
	CHECK(lt_kernel_use(NULL) == LT_OK);
	CHECK(strlen(lt_build()) > 0);
	every_format_has_every_operation();
	an_inflater_is_chosen_by_name();
	a_stream_keeps_its_inflater_and_the_next_has_the_new_one();
	for (size_t i = 0; lt_inflater_name(i); i++) {
		if (lt_inflater_state(i) != LT_OK)
			continue;
		CHECK(lt_inflater_use(lt_inflater_name(i)) == LT_OK);
		a_codec_is_reused_for_any_format();
		the_first_byte_tells_which_format_it_is();
		members_are_counted();
		the_output_budget_is_exact();
		finish_before_all_output_was_taken_is_misuse();
		a_tee_is_finished_once();
		puts(lt_inflater_name(i));
	}
	a_format_that_was_named_takes_no_other();
	a_refused_window_is_told();
	a_large_window_waits_for_leave();
	a_piece_may_have_no_larger_window_than_its_stream();
	asking_in_vain_is_no_error();
	return 0;
}
