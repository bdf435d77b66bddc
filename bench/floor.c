/*
 * floor.c: what a pull would cost if it were nothing but its kernels.
 *
 *   floor gzip|zstd SCRATCH-FILE BLOB...
 *
 * One thread, one blob after the other, each mapped and paged in beforehand.
 * Every figure is CPU time of this thread, alone with its work: no pool, no
 * queue, no HTTP, no start-up.  Sizes of pieces are those of the pool.
 * The result is one JSON object on stdout; anything wrong ends the program.
 *
 * The inflater gets raw deflate, as in the product (csrc/codec/inflate/): the
 * CRC of libisal 2.30 would leave the vector registers in a state in which
 * hashing takes twice as long.  Digests are printed so that the caller can see
 * that the right bytes were measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include "hash/lt_sha256.h"
#include "lt_api_c.h"

enum {
	IN_NBYTES = 1 << 20,
	OUT_NBYTES = 256 << 10,
	GZIP_TRAILER_NBYTES = 8,	/* RFC 1952 §2.3: CRC32, ISIZE */
};

struct blob {
	const u8 *in;
	size_t nbytes;
	u64 out_nbytes;
	u8 in_digest[32];
	u8 out_digest[32];
};

struct seconds {
	double inflate;
	double hash1_in, hash1_out;	/* one lane */
	double hash2_in, hash2_out;	/* two lanes, a partner always there */
	double receive;
	double write_in, write_out;
};

/* One decoder for all blobs; its tables and its window stay allocated. */
struct decoder {
	bool zstd;
	bool in_member;
	struct inflate_state deflate;
	ZSTD_DCtx *dctx;
	const u8 *pos, *end;
};

static u8 in_buf[2][IN_NBYTES] __attribute__((aligned(64)));
static u8 out_buf[2][OUT_NBYTES] __attribute__((aligned(64)));

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "floor: %s%s%s\n", what, errno ? ": " : "",
		errno ? strerror(errno) : "");
	exit(1);
}

static double cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct blob map_blob(const char *path)
{
	struct blob b = {0};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0)
		die(path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ,
		 MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	close(fd);
	b.in = p;
	b.nbytes = (size_t)st.st_size;
	return b;
}

/* --- inflating ---------------------------------------------------------- */

static void decoder_begin(struct decoder *d, const struct blob *b)
{
	d->pos = b->in;
	d->end = b->in + b->nbytes;
	d->in_member = false;
	if (d->zstd)
		ZSTD_DCtx_reset(d->dctx, ZSTD_reset_session_only);
}

static size_t piece_nbytes(const struct decoder *d)
{
	return lt_min((size_t)(d->end - d->pos), IN_NBYTES);
}

static void gzip_open_member(struct decoder *d)
{
	struct isal_gzip_header header;

	isal_inflate_init(&d->deflate);
	isal_gzip_header_init(&header);
	d->deflate.next_in = (u8 *)(uintptr_t)d->pos;	/* never written */
	d->deflate.avail_in = (u32)piece_nbytes(d);
	if (isal_read_gzip_header(&d->deflate, &header) != ISAL_DECOMP_OK)
		die("not a gzip header");
	d->pos = d->deflate.next_in;
	d->deflate.crc_flag = ISAL_DEFLATE;
	d->in_member = true;
}

/* The whole blob is mapped, so what the inflater read too much is at hand. */
static void gzip_close_member(struct decoder *d)
{
	if (d->deflate.read_in_length > 0)
		d->pos -= d->deflate.read_in_length / 8;
	if (d->end - d->pos < GZIP_TRAILER_NBYTES)
		die("gzip: truncated");
	d->pos += GZIP_TRAILER_NBYTES;
	d->in_member = false;
}

static size_t gzip_fill(struct decoder *d, u8 *out)
{
	struct inflate_state *s = &d->deflate;
	size_t made = 0;

	while (made < OUT_NBYTES && (d->in_member || d->pos < d->end)) {
		size_t before = made;
		const u8 *from;

		if (!d->in_member)
			gzip_open_member(d);
		from = d->pos;
		s->next_in = (u8 *)(uintptr_t)from;
		s->avail_in = (u32)piece_nbytes(d);
		s->next_out = out + made;
		s->avail_out = (u32)(OUT_NBYTES - made);
		if (isal_inflate(s) != ISAL_DECOMP_OK)
			die("gzip: corrupt");
		d->pos = s->next_in;
		made = (size_t)(s->next_out - out);
		if (s->block_state == ISAL_BLOCK_FINISH)
			gzip_close_member(d);
		else if (made == before && d->pos == from)
			die("gzip: truncated");
	}
	return made;
}

static size_t zstd_fill(struct decoder *d, u8 *out)
{
	ZSTD_outBuffer to = {out, OUT_NBYTES, 0};

	for (;;) {
		ZSTD_inBuffer from = {d->pos, piece_nbytes(d), 0};
		size_t made = to.pos;
		size_t ret = ZSTD_decompressStream(d->dctx, &to, &from);

		if (ZSTD_isError(ret))
			die(ZSTD_getErrorName(ret));
		d->pos += from.pos;
		/* Between frames, too, it asks for more. */
		if (from.pos || to.pos > made)
			d->in_member = ret != 0;
		else if (d->in_member)
			die("zstd: truncated");
		else
			return to.pos;
		if (to.pos == to.size)
			return to.pos;
	}
}

/* The next OUT_NBYTES bytes, fewer at the end of the blob, then none. */
static size_t fill(struct decoder *d, u8 *out)
{
	return d->zstd ? zstd_fill(d, out) : gzip_fill(d, out);
}

static void time_inflate(struct decoder *d, struct blob *b, struct seconds *s)
{
	double began = cpu_now();
	size_t n;

	decoder_begin(d, b);
	b->out_nbytes = 0;
	while ((n = fill(d, out_buf[0])) > 0)
		b->out_nbytes += n;
	s->inflate += cpu_now() - began;
}

/* --- hashing ------------------------------------------------------------ */

struct hashes {
	struct lt_sha256_state one, left, right;
	double one_s, two_s;
};

static void hashes_begin(struct hashes *h)
{
	lt_sha256_init(&h->one);
	lt_sha256_init(&h->left);
	lt_sha256_init(&h->right);
	h->one_s = h->two_s = 0;
}

/* The partner is a stream of the same bytes in memory of its own; half of
 * what the two take together is the share of one. */
static void hashes_update(struct hashes *h, const u8 *a, u8 *copy, size_t n)
{
	double t0, t1, t2;

	memcpy(copy, a, n);
	t0 = cpu_now();
	lt_sha256_update2(&h->left, a, n, &h->right, copy, n);
	t1 = cpu_now();
	lt_sha256_update(&h->one, a, n);
	t2 = cpu_now();
	h->two_s += (t1 - t0) / 2;
	h->one_s += t2 - t1;
}

static void hashes_end(struct hashes *h, u8 digest_ret[32])
{
	u8 left[32], right[32];

	lt_sha256_final(&h->one, digest_ret);
	lt_sha256_final(&h->left, left);
	lt_sha256_final(&h->right, right);
	if (memcmp(digest_ret, left, 32) || memcmp(digest_ret, right, 32))
		die("two lanes and one lane disagree");
}

static void time_hashes(struct decoder *d, struct blob *b, struct seconds *s)
{
	struct hashes h;
	size_t n;

	hashes_begin(&h);
	for (size_t at = 0; at < b->nbytes; at += n) {
		n = lt_min(b->nbytes - at, IN_NBYTES);
		/* Hot, as after recv. */
		memcpy(in_buf[0], b->in + at, n);
		hashes_update(&h, in_buf[0], in_buf[1], n);
	}
	hashes_end(&h, b->in_digest);
	s->hash1_in += h.one_s;
	s->hash2_in += h.two_s;

	hashes_begin(&h);
	decoder_begin(d, b);
	while ((n = fill(d, out_buf[0])) > 0)
		hashes_update(&h, out_buf[0], out_buf[1], n);
	hashes_end(&h, b->out_digest);
	s->hash1_out += h.one_s;
	s->hash2_out += h.two_s;
}

/* --- receiving and writing ---------------------------------------------- */

struct sender {
	int fd;
	const struct blob *blob;
};

static void *send_blob(void *arg)
{
	const struct sender *s = arg;

	for (size_t at = 0; at < s->blob->nbytes; ) {
		ssize_t n = send(s->fd, s->blob->in + at,
				 lt_min(s->blob->nbytes - at, IN_NBYTES),
				 MSG_NOSIGNAL);

		if (n < 0)
			die("send");
		at += (size_t)n;
	}
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

/* A TCP connection over loopback: what one end sends, the other receives. */
static void connect_pair(int *near_ret, int *far_ret)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*near_ret = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || *near_ret < 0 ||
	    bind(listener, (struct sockaddr *)&addr, len) != 0 ||
	    listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &len) != 0 ||
	    connect(*near_ret, (struct sockaddr *)&addr, len) != 0)
		die("loopback connection");
	*far_ret = accept(listener, NULL, NULL);
	if (*far_ret < 0)
		die("accept");
	close(listener);
}

static void time_receive(const struct blob *b, struct seconds *s)
{
	struct sender sender = {.blob = b};
	size_t received = 0;
	pthread_t thread;
	double began;
	ssize_t n;
	int fd;

	connect_pair(&fd, &sender.fd);
	began = cpu_now();
	if (pthread_create(&thread, NULL, send_blob, &sender) != 0)
		die("pthread_create");
	while ((n = recv(fd, in_buf[0], IN_NBYTES, 0)) > 0)
		received += (size_t)n;
	s->receive += cpu_now() - began;
	pthread_join(thread, NULL);
	close(fd);
	close(sender.fd);
	if (n < 0 || received != b->nbytes)
		die("recv");
}

/* Into a new file, from a buffer that is hot; what fsync costs is not here. */
static double time_write(const char *path, u64 nbytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	double began, took;

	if (fd < 0)
		die(path);
	began = cpu_now();
	for (u64 at = 0; at < nbytes; ) {
		ssize_t n = pwrite(fd, out_buf[0],
				   lt_min((size_t)(nbytes - at), OUT_NBYTES),
				   (off_t)at);

		if (n <= 0)
			die("pwrite");
		at += (u64)n;
	}
	took = cpu_now() - began;
	close(fd);
	unlink(path);
	return took;
}

/* --- the whole ---------------------------------------------------------- */

static void print_digest(const char *name, const u8 digest[32])
{
	printf("\"%s\": \"sha256:", name);
	for (int i = 0; i < 32; i++)
		printf("%02x", digest[i]);
	printf("\"");
}

static void print_result(const struct seconds *s, const struct blob *blobs,
			 int n_blobs)
{
	const struct {
		const char *name;
		double value;
	} rows[] = {
		{"inflate_s", s->inflate},
		{"hash1_in_s", s->hash1_in}, {"hash1_out_s", s->hash1_out},
		{"hash2_in_s", s->hash2_in}, {"hash2_out_s", s->hash2_out},
		{"receive_s", s->receive},
		{"write_in_s", s->write_in}, {"write_out_s", s->write_out},
	};

	printf("{\"kernel\": \"%s\"", lt_kernel_current());
	for (size_t i = 0; i < LT_ARRAY_SIZE(rows); i++)
		printf(", \"%s\": %.9f", rows[i].name, rows[i].value);
	printf(", \"layers\": [");
	for (int i = 0; i < n_blobs; i++) {
		printf("%s{\"in_nbytes\": %zu, \"out_nbytes\": %" PRIu64 ", ",
		       i ? ", " : "", blobs[i].nbytes, blobs[i].out_nbytes);
		print_digest("in_digest", blobs[i].in_digest);
		printf(", ");
		print_digest("out_digest", blobs[i].out_digest);
		printf("}");
	}
	printf("]}\n");
}

int main(int argc, char **argv)
{
	static struct decoder decoder;
	struct seconds s = {0};
	struct blob *blobs;
	int n_blobs = argc - 3;

	if (n_blobs < 1 || (strcmp(argv[1], "gzip") && strcmp(argv[1], "zstd")))
		die("usage: floor gzip|zstd SCRATCH-FILE BLOB...");
	decoder.zstd = strcmp(argv[1], "zstd") == 0;
	decoder.dctx = ZSTD_createDCtx();
	blobs = calloc((size_t)n_blobs, sizeof(*blobs));
	if (!decoder.dctx || !blobs || lt_kernel_use(NULL) != LT_OK)
		die("set-up");
	/* No page fault of a first use is anyone's work. */
	memset(in_buf, 1, sizeof(in_buf));
	memset(out_buf, 1, sizeof(out_buf));

	for (int i = 0; i < n_blobs; i++) {
		struct blob *b = &blobs[i];

		*b = map_blob(argv[i + 3]);
		time_inflate(&decoder, b, &s);
		time_hashes(&decoder, b, &s);
		time_receive(b, &s);
		s.write_in += time_write(argv[2], b->nbytes);
		s.write_out += time_write(argv[2], b->out_nbytes);
		munmap((void *)(uintptr_t)b->in, b->nbytes);
	}
	print_result(&s, blobs, n_blobs);
	ZSTD_freeDCtx(decoder.dctx);
	free(blobs);
	return 0;
}
