/*
 * test_sha256.c: every kernel against FIPS 180-4's examples and against the
 * portable one, at every length and alignment that could matter, one stream
 * and two.
 *
 * An argument is the name of a kernel that has to be among them.
 */
#include <stdio.h>

#include "hash/lt_sha256.h"
#include "lt_api_c.h"

#define CHECK(x) do {							\
	if (!(x)) {							\
		fprintf(stderr, "%s:%d: %s (kernel %s)\n", __FILE__,	\
			__LINE__, #x, lt_kernel_current());		\
		exit(1);						\
	}								\
} while (0)

static u8 data[5000];

static u32 next_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (u32)(*seed >> 33);
}

static void check_hex(const void *in, size_t nbytes, const char *want)
{
	u8 digest[32];
	char hex[65];

	lt_sha256(in, nbytes, digest);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	CHECK(strcmp(hex, want) == 0);
}

static void examples(void)
{
	u8 *million = malloc(1000000);

	CHECK(million);
	memset(million, 'a', 1000000);
	check_hex("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca4959"
			 "91b7852b855");
	check_hex("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb4"
			    "10ff61f20015ad");
	check_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd4"
		      "19db06c1");
	check_hex(million, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a"
				    "497200e046d39ccc7112cd0");
	free(million);
}

static void portable(const u8 *in, size_t nbytes, u8 digest[32])
{
	const char *name = lt_kernel_current();

	CHECK(lt_kernel_use("portable") == LT_OK);
	lt_sha256(in, nbytes, digest);
	CHECK(lt_kernel_use(name) == LT_OK);
}

static void lengths_and_splits(void)
{
	u64 seed = 180;

	for (size_t n = 0; n < 400; n++) {
		struct lt_sha256_state s;
		u8 want[32], got[32];
		size_t pos = 0, take;

		portable(data + n % 7, n, want);
		lt_sha256(data + n % 7, n, got);
		CHECK(memcmp(want, got, 32) == 0);
		lt_sha256_init(&s);
		for (; pos < n; pos += take) {
			take = lt_min(next_random(&seed) % 150, n - pos);
			lt_sha256_update(&s, data + n % 7 + pos, take);
		}
		lt_sha256_final(&s, got);
		CHECK(memcmp(want, got, 32) == 0);
	}
}

static void two_streams(void)
{
	u64 seed = 4;

	for (int round = 0; round < 2000; round++) {
		struct lt_sha256_state a, b;
		u8 a_want[32], b_want[32], a_got[32], b_got[32];
		size_t a_pos = 0, b_pos = 0;

		lt_sha256_init(&a);
		lt_sha256_init(&b);
		/* Unequal pieces, so that fills and lengths differ. */
		for (int i = 0; i < 4; i++) {
			size_t a_n = next_random(&seed) % 300;
			size_t b_n = next_random(&seed) % 300;

			lt_sha256_update2(&a, data + a_pos, a_n,
					  &b, data + 2000 + b_pos, b_n);
			a_pos += a_n;
			b_pos += b_n;
		}
		lt_sha256_final(&a, a_got);
		lt_sha256_final(&b, b_got);
		portable(data, a_pos, a_want);
		portable(data + 2000, b_pos, b_want);
		CHECK(memcmp(a_want, a_got, 32) == 0);
		CHECK(memcmp(b_want, b_got, 32) == 0);
		lt_sha256_two(data, a_pos, a_got, data + 2000, b_pos, b_got);
		CHECK(memcmp(a_want, a_got, 32) == 0);
		CHECK(memcmp(b_want, b_got, 32) == 0);
	}
}

/* A stream may change kernels between updates: the state is common. */
static void changing_kernels(void)
{
	struct lt_sha256_state s;
	u8 want[32], got[32];
	size_t n_kernels = 0;

	while (lt_kernel_name(n_kernels))
		n_kernels++;
	portable(data, sizeof(data), want);
	lt_sha256_init(&s);
	for (size_t pos = 0, i = 0; pos < sizeof(data); pos += 100, i++) {
		lt_kernel_use(lt_kernel_name(i % n_kernels));
		lt_sha256_update(&s, data + pos, 100);
	}
	lt_sha256_final(&s, got);
	CHECK(memcmp(want, got, 32) == 0);
}

static void a_name_is_a_demand(void)
{
	const char *name;
	size_t n = 0;

	CHECK(lt_kernel_use("portable") == LT_OK);
	CHECK(lt_kernel_use("shanni") == LT_ERR_UNKNOWN_NAME);
	CHECK(lt_kernel_use("") == LT_ERR_UNKNOWN_NAME);
	CHECK(strcmp(lt_kernel_current(), "portable") == 0);
	for (; (name = lt_kernel_name(n)); n++) {
		int ret = lt_kernel_use(name);

		CHECK(ret == lt_kernel_state(n));
		if (ret == LT_ERR_NOT_BUILT) {
			CHECK(lt_kernel_lanes(n) == 0);
			continue;
		}
		CHECK(lt_kernel_lanes(n) == 1 || lt_kernel_lanes(n) == 2);
		if (ret == LT_OK)
			CHECK(strcmp(lt_kernel_current(), name) == 0);
		else
			CHECK(ret == LT_ERR_NO_CPU);
	}
	CHECK(lt_kernel_state(n) == LT_ERR_UNKNOWN_NAME);
#ifndef LT_HAVE_OPENSSL
	CHECK(lt_kernel_use("openssl") == LT_ERR_NOT_BUILT);
#endif
	CHECK(n > 0 && strcmp(lt_kernel_name(n - 1), "portable") == 0);
	CHECK(lt_kernel_state(n - 1) == LT_OK);
	CHECK(!lt_kernel_name(n + 5) && !lt_kernel_lanes(n));
	CHECK(lt_kernel_use(NULL) == LT_OK);
	for (n = 0; lt_kernel_state(n) != LT_OK; n++)
		;
	CHECK(strcmp(lt_kernel_current(), lt_kernel_name(n)) == 0);
}

/* A stream cut at any multiple of 64 bytes, and two of them at once. */
static void from_the_middle(void)
{
	u8 digest[32], want[32];
	u32 begin[8], there[8], both[2][8];

	lt_sha256(data, sizeof(data), want);
	lt_sha256_begin(begin);
	for (size_t at = 0; at <= sizeof(data); at += 64 * 7) {
		const size_t half = at / 128 * 64;

		lt_sha256_go_on(begin, data, at, there);
		lt_sha256_end(there, at, data + at, sizeof(data) - at, digest);
		CHECK(memcmp(digest, want, 32) == 0);
		lt_sha256_go_on(begin, data, half, there);
		lt_sha256_go_on_two(begin, data, both[0], there, data + half,
				    both[1], half);
		CHECK(memcmp(both[0], there, 32) == 0);
		lt_sha256_end(both[1], 2 * half, data + 2 * half,
			      sizeof(data) - 2 * half, digest);
		CHECK(memcmp(digest, want, 32) == 0);
	}
}

int main(int argc, char **argv)
{
	u64 seed = 256;

	if (argc > 1)
		CHECK(lt_kernel_use(argv[1]) == LT_OK);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (u8)next_random(&seed);
	a_name_is_a_demand();
	for (size_t k = 0; lt_kernel_name(k); k++) {
		if (lt_kernel_state(k) != LT_OK)
			continue;
		CHECK(lt_kernel_use(lt_kernel_name(k)) == LT_OK);
		examples();
		lengths_and_splits();
		two_streams();
		from_the_middle();
	}
	changing_kernels();
	return 0;
}
