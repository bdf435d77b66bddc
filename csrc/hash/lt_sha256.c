/*
 * lt_sha256.c: SHA-256 over a table of block kernels.
 *
 * Padding, partial blocks and the pairing of two streams live here, once, so
 * that every kernel is tested by the same code and any two streams can share
 * a two-lane kernel whatever their alignment.
 *
 * Why two lanes: sha256rnds2 depends on itself (latency 4, one can start
 * every 2 cycles), so a single stream leaves half of the unit idle.
 *
 * The portable kernel is always compiled and is the oracle of the others.
 */
#include "hash/lt_sha256.h"
#include "hash/lt_kernels.h"
#include "lt_api_c.h"
#include "lt_choice.h"

/* FIPS 180-4 §4.2.2.  Aligned, as the SIMD kernel loads four at a time. */
const u32 lt_sha256_k[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5,
	0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5,
	0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline u32 ror(u32 x, unsigned int n)
{
	return x >> n | x << (32 - n);
}

static inline u32 load_be32(const u8 *p)
{
	return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | (u32)p[3];
}

static inline void store_be32(u8 *p, u32 x)
{
	p[0] = (u8)(x >> 24);
	p[1] = (u8)(x >> 16);
	p[2] = (u8)(x >> 8);
	p[3] = (u8)x;
}

/* FIPS 180-4 §6.2.2, word for word; its only virtue is to be checkable. */
static void blocks_portable(u32 h[8], const u8 *in, size_t n_blocks)
{
	for (; n_blocks; n_blocks--, in += 64) {
		u32 w[64];
		u32 v[8];
		int t;

		for (t = 0; t < 16; t++)
			w[t] = load_be32(in + 4 * t);
		for (; t < 64; t++) {
			u32 s0 = ror(w[t - 15], 7) ^ ror(w[t - 15], 18) ^
				 w[t - 15] >> 3;
			u32 s1 = ror(w[t - 2], 17) ^ ror(w[t - 2], 19) ^
				 w[t - 2] >> 10;

			w[t] = w[t - 16] + s0 + w[t - 7] + s1;
		}

		memcpy(v, h, sizeof(v));
		for (t = 0; t < 64; t++) {
			u32 a = v[0], b = v[1], c = v[2];
			u32 e = v[4], f = v[5], g = v[6];
			u32 t1 = v[7] + lt_sha256_k[t] + w[t] +
				 (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) +
				 ((e & f) ^ (~e & g));
			u32 t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) +
				 ((a & b) ^ (a & c) ^ (b & c));

			memmove(v + 1, v, 7 * sizeof(v[0]));
			v[4] += t1;
			v[0] = t1 + t2;
		}
		for (t = 0; t < 8; t++)
			h[t] += v[t];
	}
}

static bool always(void)
{
	return true;
}

static const struct lt_kernel portable = {
	.name = "portable",
	.runs_here = always,
	.blocks = blocks_portable,
};

/* --- the choice ---------------------------------------------------------- */

/*
 * Fastest first; the last one always runs.
 *
 * The order is the same on all CPUs.  Where a CPU has instructions for SHA-256,
 * libcrypto takes those as well, one lane at a time, so ours come first; where
 * it has none, ours do not run, and libcrypto has AVX2 code.  Lanes side by
 * side in wide registers are no kernel here, as two streams are what a layer
 * has: measured on Zen 5 in ns a byte, compiled from vectors of C, 16 lanes of
 * AVX-512 take 0.28 when all are full and 2.27 with two streams in them (8 of
 * AVX2: 0.53 and 2.14), two lanes of SHA-NI 0.29, libcrypto with SHA-NI masked
 * 1.82.  They would pay without SHA-NI, for three streams and more at once.
 */
static const struct lt_kernel *const kernels[] = {
	&lt_kernel_shani,
	&lt_kernel_armv8,
	&lt_kernel_openssl,
	&portable,
};

/* Set at import, before any thread. */
static const struct lt_kernel *current = &portable;

const char *lt_kernel_name(size_t index)
{
	return index < LT_ARRAY_SIZE(kernels) ? kernels[index]->name : NULL;
}

int lt_kernel_state(size_t index)
{
	if (index >= LT_ARRAY_SIZE(kernels))
		return LT_ERR_UNKNOWN_NAME;
	if (!kernels[index]->blocks)
		return LT_ERR_NOT_BUILT;
	return kernels[index]->runs_here() ? LT_OK : LT_ERR_NO_CPU;
}

int lt_kernel_use(const char *name)
{
	size_t index;
	int ret = lt_choose(name, lt_kernel_name, lt_kernel_state, &index);

	if (ret == LT_OK)
		current = kernels[index];
	return ret;
}

const char *lt_kernel_current(void)
{
	return current->name;
}

int lt_kernel_lanes(size_t index)
{
	if (index >= LT_ARRAY_SIZE(kernels) || !kernels[index]->blocks)
		return 0;
	return kernels[index]->blocks2 ? 2 : 1;
}

/* --- streams ------------------------------------------------------------ */

void lt_sha256_init(struct lt_sha256_state *s)
{
	static const u32 h0[8] = {	/* FIPS 180-4 §5.3.3 */
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};

	memcpy(s->h, h0, sizeof(h0));
	s->nbytes = 0;
	s->fill = 0;
}

/* Move bytes into an unfinished block and account for all of '*nbytes'.
 * True when the block is full and waits to be compressed. */
static bool top_up(struct lt_sha256_state *s, const u8 **in, size_t *nbytes)
{
	size_t take;

	s->nbytes += *nbytes;
	if (!s->fill || !*nbytes)
		return false;
	take = lt_min(64 - s->fill, *nbytes);
	memcpy(s->block + s->fill, *in, take);
	s->fill += (u32)take;
	*in += take;
	*nbytes -= take;
	return s->fill == 64;
}

/* Whole blocks, then the tail is kept for later. */
static void rest(struct lt_sha256_state *s, const u8 *in, size_t nbytes)
{
	size_t n_blocks = nbytes / 64;

	if (n_blocks)
		current->blocks(s->h, in, n_blocks);
	if (nbytes % 64) {
		memcpy(s->block, in + n_blocks * 64, nbytes % 64);
		s->fill = nbytes % 64;
	}
}

void lt_sha256_update(struct lt_sha256_state *s, const u8 *in, size_t in_nbytes)
{
	if (top_up(s, &in, &in_nbytes)) {
		current->blocks(s->h, s->block, 1);
		s->fill = 0;
	}
	if (in_nbytes)
		rest(s, in, in_nbytes);
}

void lt_sha256_update2(struct lt_sha256_state *a, const u8 *a_in,
		       size_t a_nbytes, struct lt_sha256_state *b,
		       const u8 *b_in, size_t b_nbytes)
{
	bool a_full, b_full;
	size_t n_both;

	if (!current->blocks2) {
		lt_sha256_update(a, a_in, a_nbytes);
		lt_sha256_update(b, b_in, b_nbytes);
		return;
	}

	a_full = top_up(a, &a_in, &a_nbytes);
	b_full = top_up(b, &b_in, &b_nbytes);
	if (a_full && b_full)
		current->blocks2(a->h, a->block, b->h, b->block, 1);
	else if (a_full)
		current->blocks(a->h, a->block, 1);
	else if (b_full)
		current->blocks(b->h, b->block, 1);
	if (a_full)
		a->fill = 0;
	if (b_full)
		b->fill = 0;

	n_both = lt_min(a_nbytes / 64, b_nbytes / 64);
	if (n_both) {
		current->blocks2(a->h, a_in, b->h, b_in, n_both);
		a_in += n_both * 64;
		b_in += n_both * 64;
		a_nbytes -= n_both * 64;
		b_nbytes -= n_both * 64;
	}
	if (a_nbytes)
		rest(a, a_in, a_nbytes);
	if (b_nbytes)
		rest(b, b_in, b_nbytes);
}

void lt_sha256_final(struct lt_sha256_state *s, u8 digest_ret[32])
{
	u8 pad[128] = {0};
	u64 nbits = s->nbytes * 8;
	size_t pad_nbytes = s->fill < 56 ? 64 : 128;

	memcpy(pad, s->block, s->fill);
	pad[s->fill] = 0x80;
	store_be32(pad + pad_nbytes - 8, (u32)(nbits >> 32));
	store_be32(pad + pad_nbytes - 4, (u32)nbits);
	current->blocks(s->h, pad, pad_nbytes / 64);
	for (int i = 0; i < 8; i++)
		store_be32(digest_ret + 4 * i, s->h[i]);
}

void lt_sha256(const void *in, size_t in_nbytes, uint8_t *digest_ret)
{
	struct lt_sha256_state s;

	lt_sha256_init(&s);
	lt_sha256_update(&s, in, in_nbytes);
	lt_sha256_final(&s, digest_ret);
}

void lt_sha256_two(const void *a, size_t a_nbytes, uint8_t *a_digest_ret,
		   const void *b, size_t b_nbytes, uint8_t *b_digest_ret)
{
	struct lt_sha256_state sa, sb;

	lt_sha256_init(&sa);
	lt_sha256_init(&sb);
	lt_sha256_update2(&sa, a, a_nbytes, &sb, b, b_nbytes);
	lt_sha256_final(&sa, a_digest_ret);
	lt_sha256_final(&sb, b_digest_ret);
}

/* --- from the middle ----------------------------------------------------- */

void lt_sha256_begin(uint32_t *state_ret)
{
	struct lt_sha256_state s;

	lt_sha256_init(&s);
	memcpy(state_ret, s.h, sizeof(s.h));
}

static void stand_at(struct lt_sha256_state *s, const u32 *from, u64 nbytes)
{
	memcpy(s->h, from, sizeof(s->h));
	s->nbytes = nbytes;
	s->fill = 0;
}

void lt_sha256_go_on(const uint32_t *from, const void *in, size_t nbytes,
		     uint32_t *to_ret)
{
	struct lt_sha256_state s;

	stand_at(&s, from, 0);
	lt_sha256_update(&s, in, nbytes);
	memcpy(to_ret, s.h, sizeof(s.h));
}

void lt_sha256_go_on_two(const uint32_t *a_from, const void *a, uint32_t *a_to_ret,
			 const uint32_t *b_from, const void *b, uint32_t *b_to_ret,
			 size_t nbytes_of_each)
{
	struct lt_sha256_state sa, sb;

	stand_at(&sa, a_from, 0);
	stand_at(&sb, b_from, 0);
	lt_sha256_update2(&sa, a, nbytes_of_each, &sb, b, nbytes_of_each);
	memcpy(a_to_ret, sa.h, sizeof(sa.h));
	memcpy(b_to_ret, sb.h, sizeof(sb.h));
}

void lt_sha256_end(const uint32_t *from, uint64_t nbytes_before,
		   const void *in, size_t in_nbytes, uint8_t *digest_ret)
{
	struct lt_sha256_state s;

	stand_at(&s, from, nbytes_before);
	lt_sha256_update(&s, in, in_nbytes);
	lt_sha256_final(&s, digest_ret);
}
