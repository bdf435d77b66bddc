/*
 * replay.c: decode files by lt_tee under many splits, with every inflater that
 * is built, and report the outcome.
 *
 * Each argument is "format:check_crc:out_budget:window_max:path".  One line
 * per file goes to stdout:
 *
 *	status error_offset in_total out_total n_members in_digest out_digest
 *	output_sha
 *
 * where the last is the hash of all output, also of a stream that failed (but
 * zero for corrupt or truncated gzip).
 * Every split and every inflater must give the same line; the first that
 * differs ends the program.  Buffers have the exact size, so that a sanitizer
 * sees any byte read or written too far.
 */
#include <inttypes.h>
#include <stdio.h>

#include "hash/lt_sha256.h"
#include "lt_api_c.h"

struct outcome {
	struct lt_result result;
	u8 output_sha[32];
};

static u32 next_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (u32)(*seed >> 33);
}

/* Piece sizes: 0 is "everything", 1 is one byte, else random up to 'kind'. */
static size_t piece(u64 *seed, size_t kind, size_t left)
{
	size_t n = kind == 0 ? left : kind == 1 ? 1
				    : next_random(seed) % kind + 1;

	return lt_min(n, left);
}

static struct outcome run(const char *spec, const u8 *data, size_t nbytes,
			  size_t in_kind, size_t out_kind, u64 seed)
{
	struct outcome r;
	struct lt_sha256_state output;
	unsigned long long budget, window;
	int format, check_crc;
	bool is_gzip;
	size_t pos = 0;
	int status;
	lt_tee *t;

	if (sscanf(spec, "%d:%d:%llu:%llu:", &format, &check_crc, &budget,
		   &window) != 4)
		exit(2);
	is_gzip = format == LT_FORMAT_GZIP ||
		  (format == LT_FORMAT_DETECT && nbytes && data[0] == 0x1f);
	t = lt_tee_new(format, check_crc, budget, window);
	if (!t)
		exit(3);
	memset(&r, 0, sizeof(r));	/* compared by memcmp */
	lt_sha256_init(&output);
	for (;;) {
		size_t in_nbytes = piece(&seed, in_kind, nbytes - pos);
		/* Small rooms for small pieces: the sanitizer's bookkeeping of
		 * 256 KiB a byte would be most of the time. */
		const size_t large = in_kind ? 1 << 12 : 1 << 18;
		size_t room = piece(&seed, out_kind ? out_kind : large, large);
		size_t in_taken, out_made;
		u8 *in = malloc(in_nbytes ? in_nbytes : 1);
		u8 *out = malloc(room);

		if (!in || !out)
			exit(4);
		if (in_nbytes)
			memcpy(in, data + pos, in_nbytes);
		status = lt_tee_feed(t, in, in_nbytes, out, room, &in_taken,
				       &out_made);
		if (in_taken > in_nbytes || out_made > room)
			exit(5);
		lt_sha256_update(&output, out, out_made);
		free(in);
		free(out);
		pos += in_taken;
		if (status < 0)
			break;
		if (!in_taken && !out_made && in_nbytes) {
			fprintf(stderr, "%s: no progress at %zu\n", spec, pos);
			exit(6);
		}
		if (pos == nbytes && out_made < room)
			break;
	}
	status = lt_tee_finish(t, &r.result);
	/* Where a gzip body breaks off, the end differs: lt_inflate_isal.c. */
	if (!is_gzip ||
	    (status != LT_ERR_DATA && status != LT_ERR_TRUNCATED))
		lt_sha256_final(&output, r.output_sha);
	lt_tee_free(t);
	return r;
}

static void print_hex(const u8 *p)
{
	putchar(' ');
	for (int i = 0; i < 32; i++)
		printf("%02x", p[i]);
}

static void print(const struct outcome *o)
{
	const struct lt_result *r = &o->result;

	printf("%d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, r->status,
	       r->error_offset, r->in_total, r->out_total, r->n_members);
	print_hex(r->in_digest);
	print_hex(r->out_digest);
	print_hex(o->output_sha);
	putchar('\n');
}

/* Under every split, by the inflater in use: as 'first' is? */
static bool all_splits_agree(const char *spec, const u8 *data, size_t nbytes,
			     const struct outcome *first)
{
	static const size_t kinds[][2] = {
		{0, 0}, {1, 0}, {0, 7}, {2, 3}, {5, 0}, {40, 100}, {300, 1000},
		{3000, 40000}, {70000, 30000}, {0, 200000},
	};

	for (size_t i = 0; i < LT_ARRAY_SIZE(kinds); i++) {
		struct outcome r;

		/* A byte at a time of a large output proves no more. */
		if (kinds[i][1] && kinds[i][1] < 50 &&
		    (first->result.out_total > 100000 || nbytes > 100000))
			continue;
		r = run(spec, data, nbytes, kinds[i][0], kinds[i][1], i + 7);
		if (memcmp(&r, first, sizeof(r)) != 0) {
			fprintf(stderr, "%s: split %zu/%zu by %s differs:\n",
				spec, kinds[i][0], kinds[i][1],
				lt_inflater_current());
			print(&r);
			return false;
		}
	}
	return true;
}

static int replay(const char *spec)
{
	const char *path = spec;
	struct outcome first;
	bool agree = true;
	FILE *f;
	u8 *data;
	long nbytes;

	for (int i = 0; i < 4 && path; i++) {
		path = strchr(path, ':');
		path = path ? path + 1 : NULL;
	}
	f = path ? fopen(path, "rb") : NULL;
	if (!f || fseek(f, 0, SEEK_END) || (nbytes = ftell(f)) < 0)
		return 1;
	rewind(f);
	data = malloc(nbytes ? (size_t)nbytes : 1);
	if (!data || fread(data, 1, (size_t)nbytes, f) != (size_t)nbytes)
		return 1;
	fclose(f);

	lt_inflater_use(NULL);
	first = run(spec, data, (size_t)nbytes, 0, 0, 1);
	print(&first);
	for (size_t i = 0; lt_inflater_name(i) && agree; i++)
		if (lt_inflater_use(lt_inflater_name(i)) == LT_OK)
			agree = all_splits_agree(spec, data, (size_t)nbytes,
						 &first);
	free(data);
	return !agree;
}

int main(int argc, char **argv)
{
	int failed = 0;

	lt_kernel_use(NULL);
	for (int i = 1; i < argc; i++)
		failed |= replay(argv[i]);
	return failed;
}
