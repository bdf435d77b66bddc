/*
 * bench_sha256.c: GB/s of every kernel that runs here, one lane and two.
 *
 * cc -O2 -DLT_HAVE_OPENSSL -Icsrc tests/c/bench_sha256.c \
 *	$(find csrc/hash csrc/cpu -name '*.c') -lcrypto
 *
 * 256 KiB buffers as in the pool; best and median of 15 runs.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <time.h>

#include "hash/lt_sha256.h"
#include "lt_api_c.h"

#define BUF_NBYTES ((size_t)256 << 10)
#define N_BUFS 200
#define N_RUNS 15

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	u8 *a = malloc(BUF_NBYTES), *b = malloc(BUF_NBYTES);

	if (!a || !b)
		return 1;
	memset(a, 0x5a, BUF_NBYTES);
	memset(b, 0xa5, BUF_NBYTES);
	for (size_t k = 0; lt_kernel_name(k); k++) {
		double rate[2][N_RUNS];

		if (lt_kernel_use(lt_kernel_name(k)) != LT_OK)
			continue;
		for (int run = 0; run < N_RUNS; run++) {
			for (int lanes = 1; lanes <= 2; lanes++) {
				struct lt_sha256_state x, y;
				double t0 = now();

				lt_sha256_init(&x);
				lt_sha256_init(&y);
				for (int i = 0; i < N_BUFS; i++) {
					if (lanes == 2) {
						lt_sha256_update2(
							&x, a, BUF_NBYTES,
							&y, b, BUF_NBYTES);
					} else {
						lt_sha256_update(&x, a,
								 BUF_NBYTES);
					}
				}
				rate[lanes - 1][run] =
					(double)lanes * N_BUFS * BUF_NBYTES /
					(now() - t0) / 1e9;
			}
		}
		qsort(rate[0], N_RUNS, sizeof(double), by_value);
		qsort(rate[1], N_RUNS, sizeof(double), by_value);
		printf("%-9s one lane %.3f (best %.3f)  two streams %.3f "
		       "(best %.3f) GB/s  ratio %.2f\n",
		       lt_kernel_name(k), rate[0][N_RUNS / 2],
		       rate[0][N_RUNS - 1], rate[1][N_RUNS / 2],
		       rate[1][N_RUNS - 1],
		       rate[1][N_RUNS / 2] / rate[0][N_RUNS / 2]);
	}
	free(a);
	free(b);
	return 0;
}
