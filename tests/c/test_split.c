/*
 * test_split.c: layers put together from lines in every split of input and
 * output, and lines that are damaged at random, under sanitizers.
 *
 * Works in a directory of its own beneath TMPDIR.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lt_api_c.h"
#include "lt_common.h"

#define CHECK(x) do {							\
	if (!(x)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);	\
		exit(1);						\
	}								\
} while (0)

static const char lines[] =
	"{\"type\":2,\"payload\":\"aGVhZA==\",\"position\":0}\n"
	"{\"type\":1,\"name\":\"d/\",\"payload\":null,\"position\":1}\n"
	"{\"type\":1,\"name\":\"d/e/a\",\"size\":5,\"payload\":\"AA==\",\"position\":2}\n"
	"{\"type\":2,\"payload\":\"\",\"position\":3}\n"
	"{\"type\":1,\"name\":\"./d/b\",\"size\":6,\"payload\":\"AA==\",\"position\":4}\n"
	"{\"type\":2,\"payload\":\"dGFpbA\",\"position\":5}\n";
static const char want[] = "headfirstsecond";

static u32 next_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (u32)(*seed >> 33);
}

static void put(int dir, const char *name, const char *content)
{
	const int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	const size_t n = strlen(content);

	CHECK(fd >= 0 && write(fd, content, n) == (ssize_t)n);
	close(fd);
}

/* All that comes of the lines, given 'step' bytes more of them at a time, into
 * 'room' bytes at a time; the last line, which is no base64, is left. */
static void whole(int tree, size_t step, size_t room)
{
	lt_split *s = lt_split_new(tree);
	struct lt_split_bounds bounds = {100, 100};
	char out[64];
	size_t at = 0, given = 0, made = 0;
	int status;

	CHECK(s != NULL);
	do {
		size_t in, n;
		/* Of exactly this size, so that a byte beyond is noticed. */
		char *text = malloc(given - at + 1);
		char *to = malloc(room);

		CHECK(text != NULL && to != NULL);
		memcpy(text, lines + at, given - at);
		status = lt_split_read(s, text, given - at, to, room, &bounds,
				       &in, &n);
		CHECK(made + n < sizeof(out) && in <= given - at && n <= room);
		memcpy(out + made, to, n);
		at += in;
		made += n;
		free(text);
		free(to);
		if (n < room)
			given = lt_min(given + step, sizeof(lines) - 1);
	} while (status == LT_SPLIT_MORE);
	CHECK(status == LT_SPLIT_LINE);
	CHECK(strncmp(lines + at, "{\"type\":2,\"payload\":\"dGFpbA\"", 28) == 0);
	CHECK(made == strlen(want) && memcmp(out, want, made) == 0);
	CHECK(bounds.nbytes == 100 - made && bounds.n_entries == 95);
	lt_split_free(s);
}

/* Whatever is in the lines: as many bytes as there is room for, and an end. */
static void damaged(int tree, u64 seed)
{
	lt_split *s = lt_split_new(tree);
	struct lt_split_bounds bounds = {next_random(&seed) % 40, 8};
	char text[sizeof(lines)];
	size_t at = 0;

	CHECK(s != NULL);
	memcpy(text, lines, sizeof(lines));
	for (u32 n = next_random(&seed) % 4; n; n--)
		text[next_random(&seed) % (sizeof(lines) - 1)] =
			(char)next_random(&seed);
	for (int calls = 0; calls < 200; calls++) {
		const size_t room = 1 + next_random(&seed) % 9;
		const u64 before = bounds.nbytes;
		char *to = next_random(&seed) % 4 ? malloc(room) : NULL;
		size_t in, n;
		const int status = lt_split_read(s, text + at,
						 sizeof(lines) - 1 - at, to,
						 room, &bounds, &in, &n);

		free(to);
		CHECK(n <= room && bounds.nbytes <= before);
		at += in;
		if (status == LT_SPLIT_FILE) {
			struct lt_split_file file;

			lt_split_give_up_file(s, &file);
			CHECK(file.left > 0 && strlen(file.name) == file.name_nbytes);
		} else if (status == LT_SPLIT_LINE || n < room) {
			break;
		}
	}
	lt_split_free(s);
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	char path[4096];
	int tree;

	snprintf(path, sizeof(path), "%s/split-XXXXXX", tmp ? tmp : "/tmp");
	CHECK(mkdtemp(path) != NULL);
	tree = open(path, O_PATH | O_DIRECTORY);
	CHECK(tree >= 0);
	CHECK(mkdirat(tree, "d", 0700) == 0 && mkdirat(tree, "d/e", 0700) == 0);
	put(tree, "d/e/a", "first");
	put(tree, "d/b", "second");
	for (size_t step = 1; step < sizeof(lines); step += step < 20 ? 1 : 37)
		for (size_t room = 1; room < 20; room++)
			whole(tree, step, room);
	for (u64 seed = 0; seed < 20000; seed++)
		damaged(tree, seed);
	unlinkat(tree, "d/e/a", 0);
	unlinkat(tree, "d/b", 0);
	unlinkat(tree, "d/e", AT_REMOVEDIR);
	unlinkat(tree, "d", AT_REMOVEDIR);
	close(tree);
	CHECK(rmdir(path) == 0);
	return 0;
}
