/*
 * kernels.c: inflaters beside one another, on the same bytes in memory.
 *
 *	kernels ROUNDS ZLIB-NG FILE...
 *
 * Each FILE is one gzip member without optional header fields.  In every round
 * all inflaters decode it, one after the other, and each round begins with
 * another of them.  A figure is CPU time of this thread.  The round before the
 * first is not counted: in it every inflater's output is checked against the
 * member's CRC-32 and length.
 *
 * Those of the product run as the product runs them, through lt_codec: pieces
 * of 1 MiB in, 256 KiB out, headers read, the CRC not computed.  zlib-ng gets
 * raw deflate in the same pieces.  libdeflate knows no pieces: it gets the
 * whole of both buffers, which no stream can.
 *
 * ZLIB-NG is a shared library with its functions, or empty.  Those of Python's
 * package have them, and can be loaded in Python's process only: so this is a
 * library, whose kernels_main kernels.py calls in a process of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <zlib.h>
#ifdef BENCH_HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "codec/lt_codec.h"
#include "lt_api_c.h"

enum {
	IN_NBYTES = 1 << 20,
	OUT_NBYTES = 256 << 10,
	HEADER_NBYTES = 10,		/* RFC 1952 §2.3, FLG being 0 */
	TRAILER_NBYTES = 8,
	MAX_CANDIDATES = 16,
	MAX_ROUNDS = 1000,
};

struct member {
	const char *path;
	const u8 *in;
	size_t nbytes;
	u32 crc, out_nbytes;
};

/* Gets every piece of output; NULL where only time is wanted. */
struct check {
	u32 crc;
	u64 nbytes;
};

struct candidate {
	const char *name;
	void (*decode)(const struct candidate *c, const struct member *m,
		       struct check *check);
	double seconds[MAX_ROUNDS];
};

static u8 out_buf[OUT_NBYTES] __attribute__((aligned(64)));
static u8 *whole;			/* room for any member's output */
static lt_codec *codec;
#ifdef BENCH_HAVE_LIBDEFLATE
static struct libdeflate_decompressor *deflate_whole;
#endif

/* As zlib-ng.h of 2.x declares it; Debian 12 has no such header. */
struct zng_stream {
	const u8 *next_in;
	u32 avail_in;
	size_t total_in;
	u8 *next_out;
	u32 avail_out;
	size_t total_out;
	const char *msg;
	void *state;
	void *zalloc, *zfree, *opaque;
	int data_type;
	u32 adler;
	unsigned long reserved;
};
static struct zng_stream ng;
static int (*ng_inflate)(struct zng_stream *, int);
static int (*ng_reset)(struct zng_stream *);

static _Noreturn void die(const char *what, const char *which)
{
	fprintf(stderr, "kernels: %s: %s%s%s\n", which, what, errno ? ": " : "",
		errno ? strerror(errno) : "");
	exit(1);
}

static double cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static u32 get_u32(const u8 *p)
{
	return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

static struct member map_member(const char *path)
{
	struct member m = {.path = path};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0 || fstat(fd, &st) != 0)
		die("cannot be opened", path);
	m.nbytes = (size_t)st.st_size;
	if (m.nbytes < HEADER_NBYTES + TRAILER_NBYTES)
		die("too short", path);
	p = mmap(NULL, m.nbytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap", path);
	close(fd);
	m.in = p;
	if (m.in[0] != 0x1f || m.in[1] != 0x8b || m.in[3] != 0)
		die("not a gzip member with a plain header", path);
	m.crc = get_u32(m.in + m.nbytes - 8);
	m.out_nbytes = get_u32(m.in + m.nbytes - 4);
	return m;
}

static void took(struct check *check, const u8 *out, size_t nbytes)
{
	if (!check)
		return;
	check->crc = (u32)crc32(check->crc, out, (uInt)nbytes);
	check->nbytes += nbytes;
}

/* --- the inflaters ------------------------------------------------------- */

static void decode_ours(const struct candidate *c, const struct member *m,
			struct check *check)
{
	size_t at = 0, used, made;

	if (lt_inflater_use(c->name) != LT_OK ||
	    lt_codec_begin(codec, LT_FORMAT_GZIP, false, true, UINT64_MAX,
			   UINT64_MAX) != LT_OK)
		die("cannot begin", c->name);
	do {
		size_t n = lt_min(m->nbytes - at, (size_t)IN_NBYTES);

		if (lt_codec_step(codec, m->in + at, n, out_buf, OUT_NBYTES,
				  &used, &made) != LT_OK)
			die("cannot decode", m->path);
		took(check, out_buf, made);
		at += used;
	} while (at < m->nbytes || made == OUT_NBYTES);
	if (lt_codec_finish(codec) != LT_OK)
		die("cannot finish", m->path);
}

#ifdef BENCH_HAVE_LIBDEFLATE
static void decode_libdeflate(const struct candidate *c, const struct member *m,
			      struct check *check)
{
	size_t made;

	if (libdeflate_deflate_decompress(
		    deflate_whole, m->in + HEADER_NBYTES,
		    m->nbytes - HEADER_NBYTES - TRAILER_NBYTES, whole,
		    m->out_nbytes, &made) != LIBDEFLATE_SUCCESS)
		die("cannot decode", c->name);
	took(check, whole, made);
}
#endif

static void decode_zlib_ng(const struct candidate *c, const struct member *m,
			   struct check *check)
{
	const u8 *end = m->in + m->nbytes - TRAILER_NBYTES;
	int ret;

	if (ng_reset(&ng) != Z_OK)
		die("cannot begin", c->name);
	ng.next_in = m->in + HEADER_NBYTES;
	do {
		ng.avail_in = (u32)lt_min((size_t)(end - ng.next_in),
					  (size_t)IN_NBYTES);
		ng.next_out = out_buf;
		ng.avail_out = OUT_NBYTES;
		ret = ng_inflate(&ng, Z_NO_FLUSH);
		if (ret != Z_OK && ret != Z_STREAM_END)
			die("cannot decode", c->name);
		took(check, out_buf, OUT_NBYTES - ng.avail_out);
	} while (ret != Z_STREAM_END);
}

/* Whether 'path' has what is needed of zlib-ng. */
static bool load_zlib_ng(const char *path)
{
	void *lib = *path ? dlopen(path, RTLD_LAZY | RTLD_LOCAL) : NULL;
	int (*init)(struct zng_stream *, int);

	if (!lib)
		return false;
	init = (int (*)(struct zng_stream *, int))dlsym(lib, "zng_inflateInit2");
	ng_inflate = (int (*)(struct zng_stream *, int))dlsym(lib, "zng_inflate");
	ng_reset = (int (*)(struct zng_stream *))dlsym(lib, "zng_inflateReset");
	return init && ng_inflate && ng_reset && init(&ng, -15) == Z_OK;
}

/* All that this build has; their number. */
static int find_candidates(struct candidate *c, const char *zlib_ng)
{
	int n = 0;
	const char *name;

	for (size_t i = 0; (name = lt_inflater_name(i)) != NULL; i++) {
		if (lt_inflater_state(i) != LT_OK || n == MAX_CANDIDATES)
			continue;
		c[n].name = name;
		c[n++].decode = decode_ours;
	}
#ifdef BENCH_HAVE_LIBDEFLATE
	deflate_whole = libdeflate_alloc_decompressor();
	if (!deflate_whole)
		die("no memory", "libdeflate");
	c[n].name = "libdeflate";
	c[n++].decode = decode_libdeflate;
#endif
	if (load_zlib_ng(zlib_ng)) {
		c[n].name = "zlib-ng";
		c[n++].decode = decode_zlib_ng;
	}
	return n;
}

/* --- rounds --------------------------------------------------------------- */

static void check_all(const struct candidate *c, int n, const struct member *m)
{
	for (int i = 0; i < n; i++) {
		struct check check = {0};

		c[i].decode(&c[i], m, &check);
		if (check.crc != m->crc || (u32)check.nbytes != m->out_nbytes)
			die("other bytes than the member has", c[i].name);
	}
}

static void time_all(struct candidate *c, int n, const struct member *m,
		     int round)
{
	for (int i = 0; i < n; i++) {
		struct candidate *one = &c[(i + round) % n];
		double began = cpu_now();

		one->decode(one, m, NULL);
		one->seconds[round] = cpu_now() - began;
	}
}

static void print_member(const struct candidate *c, int n,
			 const struct member *m, int rounds)
{
	printf("{\"path\": \"%s\", \"in_nbytes\": %zu, \"out_nbytes\": %u,"
	       " \"seconds\": {", m->path, m->nbytes, m->out_nbytes);
	for (int i = 0; i < n; i++) {
		printf("%s\"%s\": [", i ? ", " : "", c[i].name);
		for (int r = 0; r < rounds; r++)
			printf("%s%.9f", r ? ", " : "", c[i].seconds[r]);
		printf("]");
	}
	printf("}}");
}

int kernels_main(int argc, char **argv);

int kernels_main(int argc, char **argv)
{
	static struct candidate candidates[MAX_CANDIDATES + 2];
	int rounds = argc > 3 ? atoi(argv[1]) : 0;
	int n;

	if (rounds < 1 || rounds > MAX_ROUNDS)
		die("kernels ROUNDS ZLIB-NG FILE...", "usage");
	codec = lt_codec_new();
	if (!codec)
		die("no memory", "codec");
	/* Before any is demanded by name. */
	printf("{\"default\": \"%s\", \"members\": [\n", lt_inflater_current());
	n = find_candidates(candidates, argv[2]);
	for (int i = 3; i < argc; i++) {
		struct member m = map_member(argv[i]);

		whole = realloc(whole, (size_t)m.out_nbytes + 1);
		if (!whole)
			die("no memory", m.path);
		/* No page fault of a first use is anyone's work. */
		memset(whole, 1, (size_t)m.out_nbytes + 1);
		check_all(candidates, n, &m);
		for (int r = 0; r < rounds; r++)
			time_all(candidates, n, &m, r);
		print_member(candidates, n, &m, rounds);
		printf("%s\n", i + 1 < argc ? "," : "");
		munmap((void *)(uintptr_t)m.in, m.nbytes);
	}
	printf("]}\n");
	free(whole);
	lt_codec_free(codec);
	fflush(stdout);
	return 0;
}
