/*
 * lt_split.c: a layer's tar, put together from tar-split and the layer's files.
 *
 * Written for the lines that containers/storage writes.  A line that looks any
 * other way, a file that is not where its name says, or not what it was: all of
 * that is left to the caller, who has to be able to do everything in any case.
 * So there is one answer to trouble, and no trouble that needs a name.
 *
 * The lines come from the network by way of another program.  No name leads
 * out of the tree: each component is opened in the one above it, and a symlink
 * is never followed.  Directories on the way to the last file stay open, as a
 * tar goes through its directories in order.
 */
#define _GNU_SOURCE
#include "lt_api_c.h"
#include "lt_common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NAME	4096
#define MAX_DEPTH	64
#define MAX_SEGMENT	(64 << 10)	/* of decoded bytes; a header has 512 */
#define MAX_DIGITS	18		/* what fits 63 bits */

struct lt_split {
	int tree;
	/* The directories that are open, by the path to the last of them:
	 * dirs[i] is called path[ends[i - 1] .. ends[i]], slash included. */
	u32 n_dirs;
	int dirs[MAX_DEPTH];
	size_t ends[MAX_DEPTH];
	char path[MAX_NAME];
	/* The file whose bytes are next, if 'left' is not 0; fd is -1 until
	 * it is read from. */
	int fd;
	u64 at, left;
	size_t name_nbytes;
	char name[MAX_NAME];
	/* The bytes of a line that are next. */
	size_t segment_at, segment_nbytes;
	u8 segment[MAX_SEGMENT];
};

lt_split *lt_split_new(int tree)
{
	lt_split *s = calloc(1, sizeof(*s));

	if (s != NULL) {
		s->tree = tree;
		s->fd = -1;
	}
	return s;
}

static void close_file(lt_split *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static void close_dirs(lt_split *s, u32 n_kept)
{
	while (s->n_dirs > n_kept)
		close(s->dirs[--s->n_dirs]);
}

void lt_split_free(lt_split *s)
{
	if (s == NULL)
		return;
	close_file(s);
	close_dirs(s, 0);
	free(s);
}

/* --- files ------------------------------------------------------------------ */

/* How many of the open directories are the first ones of 'name'. */
static u32 n_shared(const lt_split *s, const char *name, size_t nbytes)
{
	u32 n = 0;
	size_t same = 0;
	const size_t limit = s->n_dirs ? lt_min(s->ends[s->n_dirs - 1], nbytes) : 0;

	while (same < limit && s->path[same] == name[same])
		same++;
	while (n < s->n_dirs && s->ends[n] <= same)
		n++;
	return n;
}

/* Where the first component begins: "/a", "./a" and "a" are one. */
static size_t top_of(const char *name)
{
	const char *at = name;

	for (;;) {
		if (at[0] == '/')
			at++;
		else if (at[0] == '.' && at[1] == '/')
			at += 2;
		else
			return (size_t)(at - name);
	}
}

/* The directory that 'name' is in, and where its last component begins; or -1.
 * No component beyond the top is empty, "." or "..". */
static int directory_of(lt_split *s, size_t *base_ret)
{
	const u32 n = n_shared(s, s->name, s->name_nbytes);
	size_t from = n ? s->ends[n - 1] : top_of(s->name);

	close_dirs(s, n);
	if (n == 0)
		memcpy(s->path, s->name, from);
	for (;;) {
		char part[MAX_NAME];
		const char *begin = s->name + from;
		const char *slash = memchr(begin, '/', s->name_nbytes - from);
		const size_t nbytes = slash ? (size_t)(slash - begin) :
					      s->name_nbytes - from;
		const int above = s->n_dirs ? s->dirs[s->n_dirs - 1] : s->tree;
		int fd;

		if (nbytes == 0 || (begin[0] == '.' && nbytes <= 2 &&
				    (nbytes == 1 || begin[1] == '.')))
			return -1;
		if (slash == NULL) {
			*base_ret = from;
			return above;
		}
		if (s->n_dirs == MAX_DEPTH)
			return -1;
		memcpy(part, begin, nbytes);
		part[nbytes] = '\0';
		fd = openat(above, part, O_PATH | O_DIRECTORY | O_NOFOLLOW |
					 O_CLOEXEC);
		if (fd < 0)
			return -1;
		memcpy(s->path + from, begin, nbytes + 1);
		from += nbytes + 1;
		s->dirs[s->n_dirs] = fd;
		s->ends[s->n_dirs++] = from;
	}
}

/* What is there is looked at before it is opened: opening a device alone may
 * have an effect. */
static bool open_file(lt_split *s)
{
	struct stat seen, found;
	const u64 size = s->at + s->left;
	size_t base = 0;
	const int dir = directory_of(s, &base);

	if (dir < 0 || fstatat(dir, s->name + base, &seen, AT_SYMLINK_NOFOLLOW) ||
	    !S_ISREG(seen.st_mode))
		return false;
	s->fd = openat(dir, s->name + base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
					    O_NOCTTY | O_CLOEXEC);
	if (s->fd < 0)
		return false;
	if (fstat(s->fd, &found) || found.st_dev != seen.st_dev ||
	    found.st_ino != seen.st_ino || (u64)found.st_size != size) {
		close_file(s);
		return false;
	}
	return true;
}

/* How many bytes of the file there are in 'out' now; 0: it cannot be read. */
static size_t read_file(lt_split *s, u8 *out, size_t nbytes)
{
	ssize_t n;

	if (s->fd < 0 && !open_file(s))
		return 0;
	do
		n = pread(s->fd, out, nbytes, (off_t)s->at);
	while (n < 0 && errno == EINTR);
	return n > 0 ? (size_t)n : 0;
}

/* --- lines ------------------------------------------------------------------ */

struct text {
	const char *at, *end;
};

static bool literal(struct text *t, const char *word)
{
	const size_t n = strlen(word);

	if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0)
		return false;
	t->at += n;
	return true;
}

static bool number(struct text *t, u64 *ret)
{
	const char *begin = t->at;

	*ret = 0;
	while (t->at < t->end && *t->at >= '0' && *t->at <= '9') {
		if (t->at - begin == MAX_DIGITS)
			return false;
		*ret = *ret * 10 + (u64)(*t->at++ - '0');
	}
	return t->at > begin && (*begin != '0' || t->at == begin + 1);
}

/* The value of each character of base64, and 1; 0 for all others. */
static const u8 values[256] = {
	['A'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
	20, 21, 22, 23, 24, 25, 26,
	['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
	44, 45, 46, 47, 48, 49, 50, 51, 52,
	['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
	['+'] = 63,
	['/'] = 64,
};

static bool unbase64(const char *in, size_t nbytes, u8 *out, size_t *nbytes_ret)
{
	u8 *begin = out;
	size_t n_pad = 0;

	if (nbytes % 4 != 0 || nbytes / 4 * 3 > MAX_SEGMENT)
		return false;
	while (nbytes && n_pad < 2 && in[nbytes - 1 - n_pad] == '=')
		n_pad++;
	for (size_t n = nbytes / 4; n; n--, in += 4) {
		const size_t pad = n == 1 ? n_pad : 0;
		const u32 a = values[(u8)in[0]], b = values[(u8)in[1]];
		const u32 c = pad > 1 ? 1 : values[(u8)in[2]];
		const u32 d = pad ? 1 : values[(u8)in[3]];
		u32 all;

		if (!a || !b || !c || !d)
			return false;
		all = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
		*out++ = (u8)(all >> 16);
		*out++ = (u8)(all >> 8);
		*out++ = (u8)all;
	}
	*nbytes_ret = (size_t)(out - begin) - n_pad;
	return true;
}

/* ',"position":N}' and no more. */
static bool line_ends(struct text *t)
{
	u64 position;

	return literal(t, ",\"position\":") && number(t, &position) &&
	       literal(t, "}") && t->at == t->end;
}

static bool segment_line(lt_split *s, struct text *t)
{
	const char *begin = t->at;
	const char *quote = memchr(begin, '"', (size_t)(t->end - begin));
	size_t nbytes;

	if (quote == NULL)
		return false;
	t->at = quote + 1;
	if (!line_ends(t) ||
	    !unbase64(begin, (size_t)(quote - begin), s->segment, &nbytes))
		return false;
	s->segment_at = 0;
	s->segment_nbytes = nbytes;
	return true;
}

static bool file_line(lt_split *s, struct text *t)
{
	const char *begin = t->at;
	u64 size = 0;
	size_t nbytes;

	for (; t->at < t->end && *t->at != '"'; t->at++)
		if (*t->at < ' ' || *t->at > '~' || *t->at == '\\')
			return false;
	nbytes = (size_t)(t->at - begin);
	if (nbytes == 0 || nbytes >= MAX_NAME || !literal(t, "\""))
		return false;
	if (literal(t, ",\"size\":") && !number(t, &size))
		return false;
	if (!literal(t, ",\"payload\":"))
		return false;
	if (!literal(t, "null")) {
		if (!literal(t, "\""))
			return false;
		while (t->at < t->end &&
		       (values[(u8)*t->at] || *t->at == '='))
			t->at++;
		if (!literal(t, "\""))
			return false;
	}
	if (!line_ends(t))
		return false;
	memcpy(s->name, begin, nbytes);
	s->name[nbytes] = '\0';
	s->name_nbytes = nbytes;
	s->at = 0;
	s->left = size;
	return true;
}

/* Take the line up to 'end': false, and nothing has changed, unless it is one
 * that is known and within bounds. */
static bool take_line(lt_split *s, const char *in, const char *end,
		      struct lt_split_bounds *bounds)
{
	struct text t = {in, end};
	u64 nbytes;

	if (!(literal(&t, "{\"type\":2,\"payload\":\"") ? segment_line(s, &t) :
	      literal(&t, "{\"type\":1,\"name\":\"") && file_line(s, &t)))
		return false;
	nbytes = s->segment_nbytes + s->left;
	if (nbytes > bounds->nbytes || bounds->n_entries == 0) {
		s->segment_nbytes = 0;
		s->left = 0;
		return false;
	}
	bounds->nbytes -= nbytes;
	bounds->n_entries--;
	return true;
}

/* --- both ------------------------------------------------------------------- */

int lt_split_read(lt_split *s, const char *in, size_t in_nbytes,
		  void *out, size_t out_nbytes_avail,
		  struct lt_split_bounds *bounds,
		  size_t *in_nbytes_ret, size_t *out_nbytes_ret)
{
	const char *in_at = in, *in_end = in + in_nbytes;
	u8 *to = out;
	size_t avail = out_nbytes_avail;
	int status = LT_SPLIT_MORE;

	while (avail) {
		size_t n;

		if (s->left) {
			n = s->left < avail ? (size_t)s->left : avail;
			if (to != NULL && (n = read_file(s, to, n)) == 0) {
				status = LT_SPLIT_FILE;
				break;
			}
			s->at += n;
			s->left -= n;
			if (s->left == 0)
				close_file(s);
		} else if (s->segment_nbytes) {
			n = lt_min(s->segment_nbytes, avail);
			if (to != NULL)
				memcpy(to, s->segment + s->segment_at, n);
			s->segment_at += n;
			s->segment_nbytes -= n;
		} else {
			const char *line_end =
				memchr(in_at, '\n', (size_t)(in_end - in_at));

			if (line_end == NULL)
				break;
			if (!take_line(s, in_at, line_end, bounds)) {
				status = LT_SPLIT_LINE;
				break;
			}
			in_at = line_end + 1;
			n = 0;
		}
		if (to != NULL)
			to += n;
		avail -= n;
	}
	*in_nbytes_ret = (size_t)(in_at - in);
	*out_nbytes_ret = out_nbytes_avail - avail;
	return status;
}

void lt_split_give_up_file(lt_split *s, struct lt_split_file *ret)
{
	close_file(s);
	ret->name = s->name;
	ret->name_nbytes = s->name_nbytes;
	ret->at = s->at;
	ret->left = s->left;
	s->left = 0;
}
