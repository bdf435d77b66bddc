/*
 * test_inflate.c: our own inflater against zlib, on streams that zlib makes and
 * on blocks with random codes, whole, cut and damaged; and what it promises
 * beside: buffers that end where memory ends, and freezing.
 *
 * The argument is how much is done, as a factor; 1 takes a second or two.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#include <stdio.h>
#include <sys/mman.h>

#define ZLIB_CONST
#include <zlib.h>

#include "codec/inflate/lt_inflate.h"
#include "codec/lt_crc32.h"
#include "lt_api_c.h"

#define CHECK(x) do {							\
	if (!(x)) {							\
		fprintf(stderr, "%s:%d: %s (stream %zu)\n", __FILE__,	\
			__LINE__, #x, stream_number);			\
		exit(1);						\
	}								\
} while (0)

#define PLAIN_MAX	((size_t)300 << 10)
#define STREAM_MAX	((size_t)400 << 10)
#define OUT_MAX		((size_t)512 << 10)

static size_t stream_number;
static u64 seed = 1;

static u32 random_below(u32 n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (u32)((seed >> 33) * n >> 31);
}

/* --- Streams ------------------------------------------------------------- */

struct stream {
	u8 bytes[STREAM_MAX];
	size_t nbytes;
	u64 buf;			/* bits that are no byte yet */
	u32 n;
};

static void put_bits(struct stream *s, u32 bits, u32 n)
{
	s->buf |= (u64)bits << s->n;
	for (s->n += n; s->n >= 8; s->n -= 8, s->buf >>= 8) {
		CHECK(s->nbytes < STREAM_MAX);
		s->bytes[s->nbytes++] = (u8)s->buf;
	}
}

static void fill_byte(struct stream *s)
{
	if (s->n)
		put_bits(s, 0, 8 - s->n);
}

/* Noise, text, zeros, far and near repetitions: 'nbytes' of one kind. */
static void make_plain(u8 *p, size_t nbytes)
{
	const u32 kind = random_below(6);
	size_t i = 0;

	while (i < nbytes) {
		static const u32 reach[] = {0, 0, 0, 40000, 20, 300};
		const size_t back = 1 + (reach[kind] ? random_below(reach[kind])
						     : 0);
		size_t n = 3 + random_below(kind == 5 ? 20 : 600);

		if (kind >= 3 && back <= i) {
			for (; n && i < nbytes; n--, i++)
				p[i] = p[i - back];
		} else {
			p[i++] = (u8)(kind == 0 ? random_below(256) :
				      kind == 1 ? 'a' + random_below(3) :
				      kind == 2 ? 0 :
				      random_below(64));
		}
	}
}

/* As zlib compresses something, with any of its ways and flushes. */
static void zlib_stream(struct stream *s)
{
	static const int flushes[] = {Z_NO_FLUSH, Z_PARTIAL_FLUSH, Z_SYNC_FLUSH,
				      Z_FULL_FLUSH, Z_BLOCK};
	static u8 plain[PLAIN_MAX];
	const size_t nbytes = random_below(random_below(4) ? 9000 : PLAIN_MAX);
	size_t done = 0;
	z_stream z = {0};

	make_plain(plain, nbytes);
	CHECK(deflateInit2(&z, (int)random_below(10), Z_DEFLATED,
			   -(int)(9 + random_below(7)),
			   (int)(1 + random_below(9)),
			   (int)random_below(5)) == Z_OK);
	z.next_out = s->bytes;
	z.avail_out = STREAM_MAX;
	while (done < nbytes) {
		const size_t n = lt_min(nbytes - done,
					1 + random_below((u32)nbytes + 3000));

		z.next_in = plain + done;
		z.avail_in = (u32)n;
		done += n;
		CHECK(deflate(&z, flushes[random_below(5)]) != Z_STREAM_ERROR);
		CHECK(!z.avail_in);
	}
	CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
	s->nbytes = z.total_out;
	deflateEnd(&z);
}

/* Lengths of a complete code of 'n' symbols out of 'of', which has no length
 * above 'most', and then perhaps is spoilt. */
static void random_lengths(u8 *lens, u32 n, u32 of, u32 most)
{
	u8 leaves[288] = {0};
	u32 made = 1;

	memset(lens, 0, of);
	while (made < n) {
		const u32 i = random_below(made);

		if (leaves[i] == most)
			continue;
		leaves[made++] = ++leaves[i];
	}
	if (made == 1)
		leaves[0] = 1;		/* the one that may be incomplete */
	for (u32 i = 0; i < made; ) {
		const u32 symbol = random_below(of);

		if (!lens[symbol])
			lens[symbol] = leaves[i++];
	}
	if (!random_below(12))
		lens[random_below(of)] = (u8)random_below(most + 1);
}

static void put_stored(struct stream *s, size_t nbytes)
{
	put_bits(s, 0, 3);
	fill_byte(s);
	put_bits(s, (u32)nbytes, 16);
	put_bits(s, ~(u32)nbytes & 0xffff, 16);
	while (nbytes--)
		put_bits(s, random_below(256), 8);
}

/* Of a dynamic block, as far as its lengths, which are written by put_length. */
static void put_header(struct stream *s, bool final, u32 n_litlen, u32 n_dist)
{
	static const u8 order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12,
				   3, 13, 2, 14, 1, 15};

	put_bits(s, final, 1);
	put_bits(s, 2, 2);
	put_bits(s, n_litlen - 257, 5);
	put_bits(s, n_dist - 1, 5);
	put_bits(s, 19 - 4, 4);
	for (u32 i = 0; i < 19; i++)
		put_bits(s, order[i] < 13 ? 4 : 5, 3);
}

/* A length, or 16 to 18, which say that lengths are repeated.  The codes of 4
 * bits are the number, those of 5 bits begin at 26. */
static void put_length(struct stream *s, u32 length)
{
	const u32 code = length < 13 ? length : 26 + length - 13;

	for (u32 k = length < 13 ? 4 : 5; k-- > 0; )
		put_bits(s, code >> k & 1, 1);
}

/* A block of random codes; its body is any bits, which are some of its codes,
 * or not. */
static void put_dynamic(struct stream *s, bool final)
{
	const u32 n_litlen = random_below(20) ? 257 + random_below(30)
					      : 257 + random_below(32);
	const u32 n_dist = random_below(20) ? 1 + random_below(30)
					    : 1 + random_below(32);
	const u32 longest = 9 + random_below(7);
	u8 lens[288 + 32];

	random_lengths(lens, 2 + random_below(n_litlen - 2), n_litlen, longest);
	if (!lens[256] && random_below(10)) {
		u32 other = 0;

		while (!lens[other])
			other++;
		lens[256] = lens[other];
		lens[other] = 0;
	}
	random_lengths(lens + n_litlen, random_below(4) ? n_dist
							: 1, n_dist, 15);
	if (!random_below(10))
		memset(lens + n_litlen, 0, n_dist);

	put_header(s, final, n_litlen, n_dist);
	for (u32 i = 0; i < n_litlen + n_dist; ) {
		const bool wrong = !random_below(4000);
		u32 n = 1;

		while (i + n < n_litlen + n_dist && lens[i + n] == lens[i])
			n++;
		if (!lens[i] && n >= 11 && random_below(4)) {
			n = lt_min(n, 138);
			put_length(s, 18);
			put_bits(s, wrong ? 127 : n - 11, 7);
		} else if (!lens[i] && n >= 3 && random_below(4)) {
			n = lt_min(n, 10);
			put_length(s, 17);
			put_bits(s, n - 3, 3);
		} else if ((i && lens[i] == lens[i - 1] && n >= 3) || wrong) {
			n = lt_min(n, 6);
			put_length(s, 16);
			put_bits(s, n < 3 ? 3 : n - 3, 2);
		} else {
			put_length(s, lens[i]);
			n = 1;
		}
		i += n;
	}
	for (u32 i = random_below(600); i-- > 0; )
		put_bits(s, random_below(256), 8);
}

static void random_stream(struct stream *s)
{
	s->buf = s->n = 0;
	s->nbytes = 0;
	put_stored(s, random_below(3) ? random_below(40000) : 0);
	if (!random_below(3)) {
		put_bits(s, 1 << 1, 3);
		for (u32 i = random_below(300); i-- > 0; )
			put_bits(s, random_below(256), 8);
	} else {
		put_dynamic(s, random_below(2));
	}
	fill_byte(s);
}

static void damage(struct stream *s)
{
	switch (random_below(4)) {
	case 0:
		s->nbytes = random_below((u32)s->nbytes + 1);
		break;
	case 1:
		for (u32 n = 1 + random_below(3); n && s->nbytes; n--)
			s->bytes[random_below((u32)s->nbytes)] ^=
				(u8)(1 << random_below(8));
		break;
	case 2:
		for (u32 n = random_below(40); n && s->nbytes < STREAM_MAX; n--)
			s->bytes[s->nbytes++] = (u8)random_below(256);
		break;
	default:
		break;
	}
}

/* --- Decoding ------------------------------------------------------------ */

struct outcome {
	int status;		/* LT_OK: the stream is cut */
	size_t in_nbytes;	/* valid at the end of the stream */
	size_t out_nbytes;
	u8 out[OUT_MAX];
};

/* False: it has more output than we look at. */
static bool by_zlib(struct outcome *r, const struct stream *s)
{
	z_stream z = {.next_in = s->bytes, .avail_in = (u32)s->nbytes,
		      .next_out = r->out, .avail_out = OUT_MAX};
	int ret;

	CHECK(inflateInit2(&z, -15) == Z_OK);
	do {
		ret = inflate(&z, Z_NO_FLUSH);
	} while (ret == Z_OK && z.avail_in && z.avail_out);
	r->status = ret == Z_STREAM_END ? LT_INFLATE_END :
		    ret == Z_DATA_ERROR ? LT_ERR_DATA : LT_OK;
	r->out_nbytes = z.total_out;
	r->in_nbytes = z.total_in;
	inflateEnd(&z);
	return r->out_nbytes < OUT_MAX;
}

/* 'nbytes' bytes between pages that cannot be touched, which one side touches:
 * their end, or their beginning. */
static u8 *guarded(size_t which, size_t nbytes, bool at_end)
{
	static u8 *pages[2];
	const size_t most = OUT_MAX;

	if (!pages[which]) {
		u8 *p = mmap(NULL, most + 2 * 4096, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(p != MAP_FAILED);
		CHECK(!mprotect(p + 4096, most, PROT_READ | PROT_WRITE));
		pages[which] = p + 4096;
	}
	CHECK(nbytes <= most);
	return pages[which] + (at_end ? most - nbytes : 0);
}

/* Any size up to one of these, so that some are tiny, and others pass what the
 * loops and the window have as their bounds. */
static size_t any_size(size_t left)
{
	static const u32 most[] = {1, 3, 40, 700, 40000, 200000, OUT_MAX};

	return lt_min(left, 1 + random_below(most[random_below(7)]));
}

static struct lt_inflate *decoder(const char *name)
{
	struct lt_inflate *f;

	CHECK(lt_inflater_use(name) == LT_OK);
	f = lt_inflate_renew(NULL);
	CHECK(f);
	return f;
}

/* One step of at most 'in_nbytes' and 'room'; '*pos_ret' and r->out_nbytes go
 * on. */
static int step(struct lt_inflate *f, const struct stream *s, size_t *pos_ret,
		struct outcome *r, size_t in_nbytes, size_t room)
{
	const bool at_end = random_below(2);
	u8 *const in = guarded(0, in_nbytes, at_end);
	u8 *const out = guarded(1, room, at_end);
	u8 surplus[LT_INFLATE_SURPLUS_MAX];
	size_t surplus_nbytes = 0, made;
	struct lt_cursor io = {.in = in, .in_nbytes = in_nbytes, .out = out,
			       .out_nbytes = room};
	int ret;

	memcpy(in, s->bytes + *pos_ret, in_nbytes);
	ret = lt_inflate_step(f, &io, surplus, &surplus_nbytes);
	made = room - io.out_nbytes;
	CHECK(io.in_nbytes <= in_nbytes && io.out_nbytes <= room);
	CHECK(io.in + io.in_nbytes == in + in_nbytes && io.out == out + made);
	CHECK(!surplus_nbytes);
	/* With room left it stops for want of input alone. */
	CHECK(ret != LT_OK || !io.in_nbytes || !io.out_nbytes);
	memcpy(r->out + r->out_nbytes, out, made);
	/* What was made is the caller's, who may overwrite it. */
	memset(out, 0xdd, made);
	r->out_nbytes += made;
	*pos_ret += in_nbytes - io.in_nbytes;
	return ret;
}

/* With 'thaw': after some of the steps, go on in the other decoder. */
static void by_own(struct outcome *r, const struct stream *s,
		   struct lt_inflate *f, struct lt_inflate *thaw)
{
	const bool pieces = thaw || random_below(4);
	size_t pos = 0;

	lt_inflate_reset(f);
	r->out_nbytes = 0;
	for (;;) {
		const size_t in_left = s->nbytes - pos;
		const size_t out_left = OUT_MAX - r->out_nbytes;
		const size_t room = pieces ? any_size(out_left) : out_left;
		const size_t before = r->out_nbytes;

		r->status = step(f, s, &pos, r,
				 pieces ? any_size(in_left) : in_left, room);
		r->in_nbytes = pos;
		if (r->status != LT_OK ||
		    (pos == s->nbytes && r->out_nbytes - before < room))
			return;
		if (thaw && !random_below(3)) {
			u8 frozen[LT_INFLATE_FROZEN_MAX];
			struct lt_inflate *const other = f;
			size_t n = lt_inflate_freeze(f, frozen);

			CHECK(n && n <= sizeof(frozen));
			CHECK(lt_inflate_thaw(thaw, frozen, n) == LT_OK);
			f = thaw;
			thaw = other;
		}
	}
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
	CHECK(a->status == b->status);
	CHECK(a->out_nbytes == b->out_nbytes);
	CHECK(!memcmp(a->out, b->out, a->out_nbytes));
	CHECK(a->status != LT_INFLATE_END || a->in_nbytes == b->in_nbytes);
}

/* --- Tests --------------------------------------------------------------- */

static struct stream subject;
static struct outcome want, got;
static const char *const names[] = {"own", "own-portable"};

static void any_stream(void)
{
	stream_number++;
	if (random_below(3))
		random_stream(&subject);
	else
		zlib_stream(&subject);
	damage(&subject);
}

static void every_stream_has_the_outcome_that_zlib_gives_it(size_t n)
{
	struct lt_inflate *f[2] = {decoder(names[0]), decoder(names[1])};
	size_t n_of[3] = {0};

	while (n--) {
		any_stream();
		if (!by_zlib(&want, &subject))
			continue;
		for (u32 i = 0; i < 2; i++) {
			by_own(&got, &subject, f[i], NULL);
			check_same(&got, &want);
		}
		n_of[want.status == LT_OK ? 0 : want.status < 0 ? 1 : 2]++;
	}
	/* It was not all of one kind. */
	for (u32 i = 0; i < 3; i++)
		CHECK(n_of[i] > 10);
	lt_inflate_free(f[0]);
	lt_inflate_free(f[1]);
}

static void a_frozen_stream_goes_on_in_another_decoder(size_t n)
{
	struct lt_inflate *f[2] = {decoder(names[0]), decoder(names[1])};

	while (n--) {
		any_stream();
		if (!by_zlib(&want, &subject))
			continue;
		by_own(&got, &subject, f[n % 2], f[1 - n % 2]);
		check_same(&got, &want);
	}
	lt_inflate_free(f[0]);
	lt_inflate_free(f[1]);
}

/* In most places nothing but the checksum tells that it is damaged; where that
 * is right, what comes out may be anything, but no harm is done. */
static void what_is_thawed_is_checked(size_t n)
{
	struct lt_inflate *f = decoder("own"), *other = decoder("own");
	size_t n_refused = 0, n_taken = 0;

	while (n--) {
		u8 frozen[LT_INFLATE_FROZEN_MAX + 1];
		size_t pos = 0, nbytes, head, at;
		u32 crc;
		u8 was;

		any_stream();
		lt_inflate_reset(f);
		got.out_nbytes = 0;
		if (step(f, &subject, &pos, &got,
			 any_size(subject.nbytes), any_size(OUT_MAX)) != LT_OK)
			continue;
		nbytes = lt_inflate_freeze(f, frozen);
		CHECK(lt_inflate_thaw(other, frozen, nbytes) == LT_OK);
		CHECK(lt_inflate_thaw(other, frozen, nbytes - 1) == LT_ERR_DATA);
		CHECK(lt_inflate_thaw(other, frozen, nbytes + 1) == LT_ERR_DATA);
		CHECK(lt_inflate_thaw(other, frozen, 0) == LT_ERR_DATA);

		/* All that is not the window comes first. */
		head = lt_min(nbytes - 4, 395);
		at = random_below(random_below(2) ? (u32)head : 32);
		was = frozen[at];
		frozen[at] = (u8)(random_below(2) ? was ^ 1u << random_below(8)
						  : random_below(256));
		if (frozen[at] != was)
			CHECK(lt_inflate_thaw(other, frozen, nbytes) ==
			      LT_ERR_DATA);
		crc = lt_crc32(0, frozen, nbytes - 4);
		for (u32 i = 0; i < 4; i++)
			frozen[nbytes - 4 + i] = (u8)(crc >> 8 * i);
		if (lt_inflate_thaw(other, frozen, nbytes) != LT_OK) {
			n_refused++;
			/* It can be used as if nothing had happened. */
			pos = got.out_nbytes = 0;
		} else {
			n_taken++;
		}
		while (got.out_nbytes < OUT_MAX &&
		       step(other, &subject, &pos, &got,
			    any_size(subject.nbytes - pos),
			    any_size(OUT_MAX - got.out_nbytes)) == LT_OK &&
		       pos < subject.nbytes)
			;
	}
	CHECK(n_refused > 10 && n_taken > 10);
	lt_inflate_free(f);
	lt_inflate_free(other);
}

static void compare(struct lt_inflate *f[2])
{
	stream_number++;
	CHECK(by_zlib(&want, &subject));
	for (u32 i = 0; i < 2; i++) {
		by_own(&got, &subject, f[i], NULL);
		check_same(&got, &want);
	}
}

/* Headers at the edge of what is a code, each with bodies of zeros and ones. */
static void codes_at_the_edge_are_judged_as_by_zlib(void)
{
	struct lt_inflate *f[2] = {decoder(names[0]), decoder(names[1])};

	for (u32 kind = 0; kind < 60; kind++) {
		const bool ones = kind & 1;
		const u32 which = kind / 2 % 10, bits = 1 + kind / 20;

		subject.buf = subject.n = 0;
		subject.nbytes = 0;
		if (which == 9 && bits == 2) {	/* nothing to repeat */
			put_header(&subject, true, 257, 2);
			put_length(&subject, 16);
		} else if (which == 9 && bits == 3) {	/* one too far */
			put_header(&subject, true, 257, 2);
			for (u32 i = 0; i < 257; i++)
				put_length(&subject, i == 256);
			put_length(&subject, 17);
			put_bits(&subject, 0, 3 + 8);
		} else if (which == 9) {	/* no length has a code */
			put_bits(&subject, 2 << 1, 3);
			for (u32 i = 0; i < 14 + 19 * 3; i++)
				put_bits(&subject, 0, 1);
		} else {
			put_header(&subject, true, 257, 2);
			for (u32 i = 0; i < 259; i++) {
				u32 length = 0;

				if (which == 8 && i < 16)
					/* one too many, of the longest */
					length = i < 15 ? i + 1 : 15;
				if (i == 256)	/* alone, or one of two */
					length = which == 8 ? 15 :
						 which == 7 ? 0 : bits;
				if (i == 0 && (which & 1) && which < 7)
					length = bits;
				if (i == 257 && which >= 2)
					length = which < 4 ? bits : 1;
				if (i == 258 && which >= 4 && which < 6)
					length = bits;
				put_length(&subject, length);
			}
		}
		for (u32 i = 0; i < 60; i++)
			put_bits(&subject, ones ? 0xff : random_below(4), 8);
		for (const size_t nbytes = subject.nbytes;
		     subject.nbytes > nbytes - 58; subject.nbytes--)
			compare(f);
	}
	lt_inflate_free(f[0]);
	lt_inflate_free(f[1]);
}

/* With fixed codes: the least length and a distance of 2^n + 1, for n from 2,
 * of which the extra bits are zero. */
static void put_match(struct stream *s, u32 n)
{
	const u32 code = 2 * n;

	put_bits(s, 0x40, 7);		/* 257, from its last bit on */
	for (u32 k = 5; k-- > 0; )
		put_bits(s, code >> k & 1, 1);
	put_bits(s, 0, n - 1);
}

static void a_distance_of_one_too_many_is_too_far(void)
{
	struct lt_inflate *f[2] = {decoder(names[0]), decoder(names[1])};

	for (u32 n = 2; n < 15; n++) {
		for (u32 missing = 0; missing < 3; missing++) {
			subject.buf = subject.n = 0;
			subject.nbytes = 0;
			put_stored(&subject, (1u << n) - missing);
			put_bits(&subject, 1 | 1 << 1, 3);
			put_bits(&subject, 0x0c, 8);	/* literal 0 */
			put_match(&subject, n);
			put_bits(&subject, 0, 7);	/* the end */
			fill_byte(&subject);
			for (u32 i = 0; i < 10; i++)
				compare(f);
			CHECK(want.status == (missing ? LT_ERR_DATA
						      : LT_INFLATE_END));
			for (u32 i = 0; i < 100; i++)
				put_bits(&subject, 0, 8);
			for (u32 i = 0; i < 10; i++)
				compare(f);
		}
	}
	lt_inflate_free(f[0]);
	lt_inflate_free(f[1]);
}

/* Frozen after 'in_nbytes' bytes of a stream with this room, and with one
 * number changed: where it is, its size, what it is then. */
static void is_refused(size_t in_nbytes, size_t room, size_t at, size_t nbytes,
		       u64 number)
{
	struct lt_inflate *f = decoder("own");
	u8 frozen[LT_INFLATE_FROZEN_MAX];
	size_t pos = 0, n;
	u32 crc;

	lt_inflate_reset(f);
	got.out_nbytes = 0;
	CHECK(step(f, &subject, &pos, &got, in_nbytes, room) == LT_OK);
	n = lt_inflate_freeze(f, frozen);
	CHECK(lt_inflate_thaw(f, frozen, n) == LT_OK);
	while (nbytes--) {
		frozen[at++] = (u8)number;
		number >>= 8;
	}
	crc = lt_crc32(0, frozen, n - 4);
	for (u32 i = 0; i < 4; i++)
		frozen[n - 4 + i] = (u8)(crc >> 8 * i);
	CHECK(lt_inflate_thaw(f, frozen, n) == LT_ERR_DATA);
	lt_inflate_free(f);
}

/* Each number of the format (lt_inflate_frozen.c) that bounds an index, or what
 * is copied. */
static void no_frozen_number_is_believed(void)
{
	size_t header, end;

	subject.buf = subject.n = 0;
	subject.nbytes = 0;
	put_header(&subject, true, 286, 30);
	header = subject.nbytes;
	for (u32 i = 0; i < 286 + 30; i++)	/* 256 of 8 bits; 2 of 1 bit */
		put_length(&subject, i < 255 || i == 256 ? 8 :
				     i == 286 || i == 287);
	end = subject.nbytes;
	for (u32 i = 0; i < 50; i++)
		put_bits(&subject, 0, 8);

	is_refused(header + 40, 10, 0, 1, 'L');		/* magic */
	is_refused(header + 40, 10, 3, 1, '2');		/* its version */
	is_refused(header + 40, 10, 12, 1, 32);		/* bits */
	is_refused(header + 40, 10, 4, 8, ~(u64)0);	/* more than said */
	is_refused(header + 40, 10, 13, 1, 1);	/* no body, but a symbol */
	is_refused(header + 40, 10, 18, 1, 6);		/* at */
	is_refused(header + 40, 10, 19, 1, 1);		/* kind */
	is_refused(header + 40, 10, 22, 2, 287);	/* counts */
	is_refused(header + 40, 10, 22, 2, 256);
	is_refused(header + 40, 10, 24, 2, 31);
	is_refused(header + 40, 10, 24, 2, 0);
	is_refused(header + 40, 10, 26, 2, 317);	/* lengths so far */
	is_refused(header + 40, 10, 32, 1, 8);		/* of the first code */
	is_refused(header + 40, 10, 33, 1, 5);		/* no code any more */
	is_refused(header + 40, 10, 51 + 3, 1, 16);	/* one of the second */
	is_refused(5, 10, 26, 2, 20);			/* within the first */
	is_refused(5, 10, 21, 1, 20);
	is_refused(5, 10, 32, 1, 8);
	is_refused(end + 10, 5, 13, 1, 3);		/* symbol */
	is_refused(end + 10, 5, 13, 1, 2);		/* a match of nothing */
	is_refused(end + 10, 5, 51 + 3, 1, 7);		/* one of the second */
	is_refused(end + 10, 5, 371, 4, 6);		/* of the window */
	is_refused(end + 10, 5, 371, 4, 0x80000001);
	is_refused(end + 10, 5, 371, 4, ~(u64)0);

	subject.buf = subject.n = 0;
	subject.nbytes = 0;
	put_stored(&subject, 6);
	put_bits(&subject, 1 | 1 << 1, 3);
	put_bits(&subject, 0x0c, 8);
	put_match(&subject, 2);
	end = subject.nbytes;
	put_bits(&subject, 0, 7 + 8);
	is_refused(7, 100, 12, 1, 8);		/* bits within stored bytes */
	is_refused(7, 100, 28, 4, 65536);	/* of which there are too many */
	is_refused(end + 1, 8, 16, 2, 9);	/* distance */
	is_refused(end + 1, 8, 16, 2, 0);
	is_refused(end + 1, 8, 14, 2, 259);	/* length */
	is_refused(end + 1, 8, 14, 2, 0);
}

/* That of others is not known to us. */
static void only_our_own_can_be_frozen(void)
{
	u8 frozen[LT_INFLATE_FROZEN_MAX];

	for (size_t i = 0; lt_inflater_name(i); i++) {
		const bool own = !strncmp(lt_inflater_name(i), "own", 3);
		struct lt_inflate *f;
		size_t n;

		if (lt_inflater_state(i) != LT_OK)
			continue;
		f = decoder(lt_inflater_name(i));
		lt_inflate_reset(f);
		n = lt_inflate_freeze(f, frozen);
		CHECK((n != 0) == own);
		CHECK(lt_inflate_thaw(f, frozen, n) ==
		      (own ? LT_OK : LT_ERR_MISUSE));
		lt_inflate_free(f);
	}
}

/* Every window of every match of a long stream, with rooms about as large as
 * those where the decoder begins to work in them. */
static void matches_reach_back_over_any_rooms(size_t n)
{
	static u8 plain[OUT_MAX - 1];
	struct lt_inflate *f[2] = {decoder(names[0]), decoder(names[1])};

	while (n--) {
		z_stream z = {0};
		size_t i = 0;

		stream_number++;
		while (i < sizeof(plain)) {
			const u32 back = 32768 - random_below(3) *
						 random_below(200);
			size_t m = 3 + random_below(2000);

			for (; m && i < sizeof(plain); m--, i++)
				plain[i] = i < back || m == 1 ?
					   (u8)random_below(256) :
					   plain[i - back];
		}
		CHECK(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, 0) == Z_OK);
		z.next_in = plain;
		z.avail_in = sizeof(plain);
		z.next_out = subject.bytes;
		z.avail_out = STREAM_MAX;
		CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
		subject.nbytes = z.total_out;
		deflateEnd(&z);
		for (u32 k = 0; k < 4; k++) {
			by_own(&got, &subject, f[k % 2], NULL);
			CHECK(got.status == LT_INFLATE_END);
			CHECK(got.out_nbytes == sizeof(plain));
			CHECK(!memcmp(got.out, plain, sizeof(plain)));
		}
	}
	lt_inflate_free(f[0]);
	lt_inflate_free(f[1]);
}

int main(int argc, char **argv)
{
	const size_t factor = argc > 1 ? (size_t)atol(argv[1]) : 1;

	if (argc > 2)
		seed = (u64)atoll(argv[2]);
	only_our_own_can_be_frozen();
	no_frozen_number_is_believed();
	codes_at_the_edge_are_judged_as_by_zlib();
	a_distance_of_one_too_many_is_too_far();
	every_stream_has_the_outcome_that_zlib_gives_it(1000 * factor);
	a_frozen_stream_goes_on_in_another_decoder(500 * factor);
	what_is_thawed_is_checked(600 * factor);
	matches_reach_back_over_any_rooms(3 * factor);
	return 0;
}
