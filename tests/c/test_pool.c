/*
 * test_pool.c: the pool under load, alone.  Built and run under
 * ThreadSanitizer and under ASan + UBSan by tests/c/test_c_core.py.
 *
 * Oracles are OpenSSL for the digests and the generator for the bytes.  The
 * driver is one thread, as the pool demands; everything random has a seed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "lt_api_c.h"
#include "lt_common.h"

#define CHECK(cond)                                                       \
	do {                                                              \
		if (!(cond)) {                                            \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, \
				#cond);                                   \
			abort();                                          \
		}                                                         \
	} while (0)

#define MAX_LAYERS 8

static u64 seed = 88172645463325252u;

static u32 rnd(u32 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 33) % below;
}

struct blob {
	u8 *out, *in;
	size_t out_nbytes, in_nbytes;
	u8 out_digest[32], in_digest[32];
	int format;
	u64 n_members;
};

static void sha(const u8 *p, size_t n, u8 *ret)
{
	CHECK(EVP_Digest(p, n, ret, NULL, EVP_sha256(), NULL));
}

/* One member, flushed now and then: each flush ends in a marker. */
static void gzip(struct blob *b)
{
	z_stream z = { 0 };
	size_t left = b->out_nbytes;

	CHECK(deflateInit2(&z, 1, Z_DEFLATED, 31, 8, 0) == Z_OK);
	z.next_in = b->out;
	z.next_out = b->in;
	z.avail_out = (uInt)b->in_nbytes;
	while (left) {
		const size_t n = lt_min(left, 1 + rnd(20000));

		z.avail_in = (uInt)n;
		left -= n;
		CHECK(deflate(&z, rnd(2) ? Z_SYNC_FLUSH : Z_NO_FLUSH) == Z_OK);
	}
	CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
	b->in_nbytes = z.total_out;
	b->n_members = 1;
	deflateEnd(&z);
}

/* Many frames, some of them to be skipped. */
static void zstd(struct blob *b)
{
	static const u8 skip[] = { 0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7 };
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t from = 0, to = 0;

	do {
		const size_t n = lt_min(b->out_nbytes - from, 1 + rnd(20000));
		size_t made;

		if (!rnd(4)) {
			memcpy(b->in + to, skip, sizeof(skip));
			to += sizeof(skip);
			b->n_members++;
		}
		ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, rnd(4) > 0);
		made = ZSTD_compress2(c, b->in + to, b->in_nbytes - to,
				      b->out + from, n);
		CHECK(!ZSTD_isError(made));
		from += n;
		to += made;
		b->n_members++;
	} while (from < b->out_nbytes);
	ZSTD_freeCCtx(c);
	b->in_nbytes = to;
}

/* Half text-like, half noise, so that gzip both stores and compresses. */
static struct blob make_blob(size_t nbytes, int format)
{
	struct blob b = { .out_nbytes = nbytes, .format = format };

	b.out = malloc(nbytes + 1);
	for (size_t i = 0; i < nbytes; i++)
		b.out[i] = (i >> 12) & 1 ? (u8)rnd(256) : (u8)("layer tee "[i % 10]);
	if (format == LT_FORMAT_NONE) {
		b.in = malloc(nbytes + 1);
		memcpy(b.in, b.out, nbytes);
		b.in_nbytes = nbytes;
		b.n_members = nbytes > 0;
	} else {
		b.in_nbytes = nbytes + nbytes / 4 + 4096;
		b.in = malloc(b.in_nbytes);
		if (format == LT_FORMAT_GZIP)
			gzip(&b);
		else
			zstd(&b);
	}
	sha(b.out, b.out_nbytes, b.out_digest);
	sha(b.in, b.in_nbytes, b.in_digest);
	return b;
}

static void free_blob(struct blob *b)
{
	free(b->in);
	free(b->out);
}

/* One layer as the driver sees it. */
struct drive {
	const struct blob *blob;
	int32_t id;
	int fd;
	int spool;		/* one more than its descriptor; 0: none */
	u64 in_from;
	u32 flags;
	u64 budget;		/* 0: one that is never used up */
	size_t sent, seen;
	bool ended, done;
	u32 cancel_after;	/* events of the driver's loop; 0: never */
	struct lt_result result;
};

static lt_pool *new_pool(u32 workers)
{
	struct lt_pool_config c = { workers, 6, 8192, 6, 4096,
				    workers - 1, 1024 };
	lt_pool *p = lt_pool_new(&c);

	CHECK(p);
	return p;
}

static void start(lt_pool *p, struct drive *d)
{
	struct lt_layer_config c = {
		.format = d->blob->format,
		.flags = d->flags | LT_LAYER_CHECK_CRC,
		.fd = d->fd,
		.spool_fd = d->spool - 1,
		.in_from = d->in_from,
		.in_size = d->blob->in_nbytes,
		.out_budget = d->budget ? d->budget : (u64)1 << 32,
		.window_max = (u64)1 << 27,
	};

	d->id = lt_pool_layer_open(p, &c);
	CHECK(d->id >= 0);
}

static void handle(lt_pool *p, struct drive *d, u32 n, const struct lt_event *e)
{
	for (u32 i = 0; i < n; i++, d++) {
		if (d->id != e->layer || d->done)
			continue;
		if (e->kind == LT_EVENT_OUT) {
			if (!d->cancel_after)
				CHECK(!memcmp(lt_pool_out_ptr(p, e->buf),
					      d->blob->out + d->seen, e->nbytes));
			d->seen += e->nbytes;
			CHECK(lt_pool_out_done(p, e->buf) == LT_OK);
		} else {
			CHECK(e->kind == LT_EVENT_DONE);
			CHECK(lt_pool_layer_result(p, d->id, &d->result) == LT_OK);
			CHECK(lt_pool_layer_free(p, d->id) == LT_OK);
			d->done = true;
			d->id = -1;
		}
		return;
	}
	CHECK(e->kind == LT_EVENT_IN_FREE);
}

static void drive_all(lt_pool *p, struct drive *d, u32 n)
{
	u32 left = n, turn = 0;

	for (u32 i = 0; i < n; i++)
		start(p, &d[i]);
	while (left) {
		struct lt_event ev[4];
		struct pollfd pfd = { lt_pool_eventfd(p), POLLIN, 0 };
		u32 i = rnd(n);
		size_t got;
		bool fed = false;

		turn++;
		for (u32 k = 0; k < n; k++)
			if (d[k].cancel_after && turn >= d[k].cancel_after &&
			    !d[k].done)
				lt_pool_layer_cancel(p, d[k].id);
		if (!d[i].done && !d[i].ended) {
			size_t rest = d[i].blob->in_nbytes - d[i].sent;
			int32_t b = rest ? lt_pool_take(p, -1, 0) : -1;

			if (b >= 0) {
				u32 len = 1 + rnd(8192);

				len = (u32)lt_min(len, rest);
				memcpy(lt_pool_in_ptr(p, b),
				       d[i].blob->in + d[i].sent, len);
				lt_pool_submit(p, d[i].id, b, len);
				d[i].sent += len;
				fed = true;
			}
			if (d[i].sent == d[i].blob->in_nbytes) {
				lt_pool_layer_end(p, d[i].id);
				d[i].ended = true;
				fed = true;
			}
		}
		if (!fed)
			poll(&pfd, 1, 1);
		while ((got = lt_pool_poll(p, ev, 4)))
			for (size_t k = 0; k < got; k++)
				handle(p, d, n, &ev[k]);
		left = 0;
		for (u32 k = 0; k < n; k++)
			left += !d[k].done;
	}
}

/* Zeros up to 'from', then the bytes of 'want'. */
static void check_rest(int fd, size_t from, const u8 *want, size_t n)
{
	u8 *got = malloc(n + 1);

	CHECK(got && pread(fd, got, n + 1, 0) == (ssize_t)n);
	for (size_t i = 0; i < n; i++)
		CHECK(got[i] == (i < from ? 0 : want[i]));
	free(got);
}

static void check_file(int fd, const u8 *want, size_t n)
{
	u8 *got = malloc(n + 1);

	CHECK(pread(fd, got, n + 1, 0) == (ssize_t)n);
	CHECK(!memcmp(got, want, n));
	free(got);
}

static void check_good(struct drive *d)
{
	CHECK(d->result.status == LT_OK);
	CHECK(d->result.in_total == d->blob->in_nbytes);
	CHECK(!memcmp(d->result.in_digest, d->blob->in_digest, 32));
	if (d->flags & LT_LAYER_DIGEST_ONLY) {
		CHECK(!d->result.out_total && !d->result.n_members);
		return;
	}
	CHECK(d->result.n_members == d->blob->n_members);
	CHECK(d->result.out_total == d->blob->out_nbytes);
	CHECK(!memcmp(d->result.out_digest, d->blob->out_digest, 32));
}

static void test_many_layers(u32 workers)
{
	static const u32 flags[] = {
		LT_LAYER_WRITE_IN, LT_LAYER_WRITE_OUT, LT_LAYER_STREAM_OUT,
		LT_LAYER_DIGEST_ONLY, LT_LAYER_WRITE_IN | LT_LAYER_DIGEST_ONLY,
	};
	static const int formats[] = {
		LT_FORMAT_GZIP, LT_FORMAT_GZIP, LT_FORMAT_ZSTD, LT_FORMAT_ZSTD,
		LT_FORMAT_NONE,
	};

	for (u32 round = 0; round < 12; round++) {
		struct blob blobs[MAX_LAYERS];
		struct drive d[MAX_LAYERS] = { 0 };
		lt_pool *p = new_pool(workers);
		u32 n = 1 + rnd(4);	/* more layers than this need more buffers */
		struct lt_pool_stats st;

		for (u32 i = 0; i < n; i++) {
			size_t size = rnd(4) ? rnd(300000) : rnd(3);

			blobs[i] = make_blob(size, formats[rnd(5)]);
			d[i].blob = &blobs[i];
			d[i].flags = flags[rnd(5)];
			d[i].fd = memfd_create("layer", MFD_CLOEXEC);
		}
		drive_all(p, d, n);
		lt_pool_stats(p, &st);
		CHECK(st.in_used == 0 && st.out_used == 0);
		CHECK(st.in_queued == 0 && st.n_layers == 0);
		for (u32 i = 0; i < n; i++) {
			check_good(&d[i]);
			if (d[i].flags & LT_LAYER_WRITE_IN)
				check_file(d[i].fd, blobs[i].in,
					   blobs[i].in_nbytes);
			if (d[i].flags & LT_LAYER_WRITE_OUT)
				check_file(d[i].fd, blobs[i].out,
					   blobs[i].out_nbytes);
			if (d[i].flags & LT_LAYER_STREAM_OUT)
				CHECK(d[i].seen == blobs[i].out_nbytes);
			close(d[i].fd);
			free_blob(&blobs[i]);
		}
		lt_pool_free(p);
	}
}

/* A file that has some of the blob gets the rest; what it has is left alone. */
static void test_writing_goes_on_where_a_file_ends(void)
{
	for (u32 round = 0; round < 40; round++) {
		const bool spooled = round % 2;
		struct blob b = make_blob(1 + rnd(300000), LT_FORMAT_GZIP);
		struct drive d = { .blob = &b };
		lt_pool *p = new_pool(2);
		int part = memfd_create("part", MFD_CLOEXEC);
		int tar = memfd_create("tar", MFD_CLOEXEC);
		size_t have = rnd(8) ? rnd((u32)b.in_nbytes + 1) : b.in_nbytes;
		u8 *zeros = calloc(1, have + 1);

		d.flags = spooled ? LT_LAYER_WRITE_OUT : LT_LAYER_WRITE_IN;
		d.fd = spooled ? tar : part;
		d.spool = spooled ? part + 1 : 0;
		d.in_from = have;
		CHECK(pwrite(part, zeros, have, 0) == (ssize_t)have);
		drive_all(p, &d, 1);
		check_good(&d);
		if (spooled)
			check_file(tar, b.out, b.out_nbytes);
		check_rest(part, have, b.in, b.in_nbytes);
		free(zeros);
		close(part);
		close(tar);
		lt_pool_free(p);
		free_blob(&b);
	}
}

static void test_a_spool_that_cannot_be_written_is_given_up(void)
{
	struct blob b = make_blob(200000, LT_FORMAT_GZIP);
	struct drive d = { .blob = &b, .flags = LT_LAYER_WRITE_OUT };
	lt_pool *p = new_pool(2);
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	d.fd = memfd_create("tar", MFD_CLOEXEC);
	d.spool = full + 1;
	drive_all(p, &d, 1);
	check_good(&d);
	check_file(d.fd, b.out, b.out_nbytes);
	close(full);
	close(d.fd);
	lt_pool_free(p);
	free_blob(&b);
}

static void test_cancel_in_flight(void)
{
	struct blob b = make_blob(200000, LT_FORMAT_GZIP);

	for (u32 round = 0; round < 60; round++) {
		struct drive d[3] = { 0 };
		struct lt_pool_stats st;
		lt_pool *p = new_pool(2);

		for (u32 i = 0; i < 3; i++) {
			d[i].blob = &b;
			d[i].fd = memfd_create("layer", MFD_CLOEXEC);
			d[i].flags = i == 2 ? LT_LAYER_STREAM_OUT
					    : LT_LAYER_WRITE_OUT;
			d[i].cancel_after = i ? 1 + rnd(40) : 0;
		}
		drive_all(p, d, 3);
		check_good(&d[0]);	/* its neighbours' end is not its own */
		check_file(d[0].fd, b.out, b.out_nbytes);
		for (u32 i = 1; i < 3; i++)
			CHECK(d[i].result.status == LT_ERR_CANCELLED ||
			      d[i].result.status == LT_OK);
		lt_pool_stats(p, &st);
		CHECK(st.in_used == 0 && st.out_used == 0);
		for (u32 i = 0; i < 3; i++)
			close(d[i].fd);
		lt_pool_free(p);
	}
	free_blob(&b);
}

static void test_a_failing_write_fails_its_layer_only(void)
{
	struct blob b = make_blob(100000, LT_FORMAT_GZIP);
	struct drive d[2] = { { .blob = &b, .flags = LT_LAYER_WRITE_OUT },
			      { .blob = &b, .flags = LT_LAYER_WRITE_OUT } };
	lt_pool *p = new_pool(2);

	d[0].fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	d[1].fd = memfd_create("layer", MFD_CLOEXEC);
	CHECK(d[0].fd >= 0);
	drive_all(p, d, 2);
	CHECK(d[0].result.status == LT_ERR_WRITE);
	CHECK(d[0].result.os_errno == ENOSPC);
	check_good(&d[1]);
	check_file(d[1].fd, b.out, b.out_nbytes);
	close(d[0].fd);
	close(d[1].fd);
	lt_pool_free(p);
	free_blob(&b);
}

static void test_corrupt_layers_fail_alone(void)
{
	struct blob good = make_blob(150000, LT_FORMAT_GZIP);
	struct blob bad = make_blob(150000, LT_FORMAT_GZIP);
	struct blob cut = make_blob(150000, LT_FORMAT_GZIP);
	struct drive d[3] = { { .blob = &good, .flags = LT_LAYER_WRITE_OUT },
			      { .blob = &bad, .flags = LT_LAYER_WRITE_OUT },
			      { .blob = &cut, .flags = LT_LAYER_WRITE_IN } };
	lt_pool *p = new_pool(2);

	bad.in[bad.in_nbytes - 6] ^= 1;	/* CRC */
	cut.in_nbytes -= 3;
	for (u32 i = 0; i < 3; i++)
		d[i].fd = memfd_create("layer", MFD_CLOEXEC);
	drive_all(p, d, 3);
	check_good(&d[0]);
	CHECK(d[1].result.status == LT_ERR_CHECKSUM);
	CHECK(d[1].result.error_offset == 0);
	CHECK(d[2].result.status == LT_ERR_TRUNCATED);
	for (u32 i = 0; i < 3; i++)
		close(d[i].fd);
	lt_pool_free(p);
	free_blob(&good);
	free_blob(&bad);
	free_blob(&cut);
}

/* What one tee says of the blob, which no worker can have decoded ahead. */
static struct lt_result one_tee(const struct blob *b, u64 budget)
{
	lt_tee *t = lt_tee_new(b->format, 1, budget, (u64)1 << 27);
	struct lt_result r;
	size_t pos = 0, n_in, n_out;
	static u8 out[65536];

	CHECK(t);
	while (lt_tee_feed(t, b->in + pos, b->in_nbytes - pos, out, sizeof(out),
			   &n_in, &n_out) == LT_OK) {
		pos += n_in;
		if (pos == b->in_nbytes && n_out < sizeof(out))
			break;
	}
	lt_tee_finish(t, &r);
	lt_tee_free(t);
	return r;
}

/* Large layers alone, some of them damaged or above their budget. */
static void test_pieces_change_no_verdict(u32 workers, int format, u32 rounds)
{
	const bool can = workers > 1 &&
			 (format == LT_FORMAT_ZSTD ||
			  !strncmp(lt_inflater_current(), "own", 3));
	u64 ahead_nbytes = 0;
	u32 n_bad = 0, round = 0;

	/* Which worker finds what to do first is not ours to say: on a busy
	 * machine it may take many rounds until one is idle at a good moment. */
	for (; round < rounds || (can && !ahead_nbytes && round < 5000);
	     round++) {
		struct blob b = make_blob(100000 + rnd(400000), format);
		struct drive d = { .blob = &b, .flags = LT_LAYER_WRITE_OUT };
		lt_pool *p = new_pool(workers);
		struct lt_pool_stats st;
		struct lt_result want;

		d.budget = rnd(8) ? (u64)1 << 32
				  : b.out_nbytes - rnd(3) * rnd(50000);
		if (!rnd(2))
			b.in[rnd((u32)b.in_nbytes)] ^= (u8)(1 << rnd(8));
		sha(b.in, b.in_nbytes, b.in_digest);
		want = one_tee(&b, d.budget);
		d.fd = memfd_create("layer", MFD_CLOEXEC);
		drive_all(p, &d, 1);
		CHECK(d.result.status == want.status);
		CHECK(d.result.error_offset == want.error_offset);
		CHECK(d.result.in_total == want.in_total);
		CHECK(d.result.out_total == want.out_total);
		CHECK(d.result.n_members == want.n_members);
		CHECK(!memcmp(d.result.in_digest, want.in_digest, 32));
		CHECK(!memcmp(d.result.out_digest, want.out_digest, 32));
		n_bad += want.status != LT_OK;
		lt_pool_stats(p, &st);
		CHECK(st.in_used == 0 && st.out_used == 0);
		ahead_nbytes += st.ahead_nbytes;
		close(d.fd);
		lt_pool_free(p);
		free_blob(&b);
	}
	CHECK(n_bad && n_bad < round);
	CHECK((ahead_nbytes > 0) == can);
}

static void test_free_with_open_layers(void)
{
	struct blob b = make_blob(60000, LT_FORMAT_GZIP);

	for (u32 round = 0; round < 30; round++) {
		struct drive d = { .blob = &b, .flags = LT_LAYER_STREAM_OUT };
		lt_pool *p = new_pool(3);
		int32_t buf;

		start(p, &d);
		while ((buf = lt_pool_take(p, -1, 0)) >= 0) {
			u32 len = (u32)lt_min(8192, b.in_nbytes - d.sent);

			memcpy(lt_pool_in_ptr(p, buf), b.in + d.sent, len);
			d.sent += len;
			CHECK(lt_pool_submit(p, d.id, buf, len) == LT_OK);
			if (!rnd(3))
				break;
		}
		lt_pool_free(p);
	}
	free_blob(&b);
}

static void test_misuse_is_refused(void)
{
	struct blob b = make_blob(10, LT_FORMAT_GZIP);
	struct drive d = { .blob = &b, .flags = LT_LAYER_STREAM_OUT };
	struct lt_layer_config both = { .format = LT_FORMAT_GZIP, .fd = 1,
		.flags = LT_LAYER_WRITE_IN | LT_LAYER_WRITE_OUT, .spool_fd = -1 };
	struct lt_layer_config twice = { .format = LT_FORMAT_GZIP, .fd = 1,
		.flags = LT_LAYER_WRITE_IN, .spool_fd = 1 };
	struct lt_layer_config plain = { .format = LT_FORMAT_NONE, .fd = 1,
		.flags = LT_LAYER_WRITE_OUT, .spool_fd = 1 };
	struct lt_layer_config odd = { .format = 9, .fd = -1, .spool_fd = -1 };
	struct lt_pool_config none = { 0, 1, 1, 2, 1, 0, 0 };
	struct lt_pool_config nothing_ahead = { 1, 1, 1, 2, 1, 1, 0 };
	struct lt_layer_spent spent;
	struct lt_result r;
	lt_pool *p = new_pool(1);
	int32_t buf;

	CHECK(!lt_pool_new(&none));
	CHECK(!lt_pool_new(&nothing_ahead));
	CHECK(lt_pool_layer_open(p, &both) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_open(p, &twice) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_open(p, &plain) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_end_spool(p, 0) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_open(p, &odd) < 0);
	start(p, &d);
	CHECK(lt_pool_layer_result(p, d.id, &r) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_spent(p, d.id, &spent) == LT_OK);
	CHECK(!spent.in_nbytes && !spent.out_nbytes && !spent.work_ns);
	CHECK(lt_pool_layer_spent(p, d.id + 1, &spent) == LT_ERR_MISUSE);
	for (buf = 0; buf < 6; buf++)	/* none was lent */
		CHECK(lt_pool_out_done(p, buf) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_free(p, d.id) == LT_ERR_MISUSE);
	buf = lt_pool_take(p, -1, 0);
	CHECK(lt_pool_submit(p, d.id, buf, 8193) == LT_ERR_MISUSE);
	CHECK(lt_pool_layer_end(p, d.id) == LT_OK);
	CHECK(lt_pool_layer_end(p, d.id) == LT_ERR_MISUSE);
	buf = lt_pool_take(p, -1, 0);
	CHECK(lt_pool_submit(p, d.id, buf, 1) == LT_ERR_MISUSE);
	CHECK(lt_pool_take(p, -1, 6) == -1);
	lt_pool_free(p);
	lt_pool_free(NULL);
	free_blob(&b);
}

int main(void)
{
	CHECK(lt_kernel_use(NULL) == LT_OK);
	test_misuse_is_refused();
	test_many_layers(1);
	test_many_layers(2);
	test_many_layers(5);
	for (size_t i = 0; lt_inflater_name(i); i++)
		if (lt_inflater_use(lt_inflater_name(i)) == LT_OK)
			test_many_layers(2);
	CHECK(lt_inflater_use(NULL) == LT_OK);
	test_writing_goes_on_where_a_file_ends();
	test_a_spool_that_cannot_be_written_is_given_up();
	test_cancel_in_flight();
	test_a_failing_write_fails_its_layer_only();
	test_corrupt_layers_fail_alone();
	test_free_with_open_layers();
	test_pieces_change_no_verdict(1, LT_FORMAT_ZSTD, 16);
	test_pieces_change_no_verdict(2, LT_FORMAT_ZSTD, 24);
	test_pieces_change_no_verdict(4, LT_FORMAT_ZSTD, 24);
	for (size_t i = 0; lt_inflater_name(i); i++) {
		if (lt_inflater_use(lt_inflater_name(i)) != LT_OK)
			continue;
		test_pieces_change_no_verdict(2, LT_FORMAT_GZIP, 16);
		test_pieces_change_no_verdict(4, LT_FORMAT_GZIP, 24);
	}
	CHECK(lt_inflater_use(NULL) == LT_OK);
	puts("pool: ok");
	return 0;
}
