/*
 * lt_pool.c: worker threads that run many tees.  The only file with threads.
 *
 * A layer is two streams: "in", its blob, and "out", what that inflates to.
 * Three kinds of work follow from a submitted buffer, and each may be done by
 * any worker:
 *
 *   inflate   in buffers -> one out buffer, in order, one worker per layer
 *   hash      the oldest bytes of a stream, in order, one worker per stream
 *   write     the bytes just hashed, by the same worker, still in its cache
 *
 * Splitting inflate from hash is what makes two-lane hashing possible: two
 * SHA-256 streams interleaved on one core run at 1.85 to 1.9 times the rate of
 * one, and any two waiting streams will do, a layer's own two included.
 *
 * One mutex guards all state.  It is taken about three times per 256 KiB of
 * output (some 20,000 times per GB), which does not show in a profile; no lock
 * is held while bytes are touched.  Who may touch what without the lock:
 * 'inflating' makes codec, infl_* and out_cur the worker's; 'busy' of a stream
 * makes its hash state and its cursor the worker's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lt_tee.h"

#define MAX_WORKERS	64
#define MAX_LAYERS	64
/* Decoders kept for reuse: a zstd context costs its window (8 MiB) in page
 * faults each time it is made anew. */
#define MAX_SPARE_CODECS	4
/* A lone stream waits for a partner while another worker inflates, until this
 * many of its buffers wait: 2-lane share 71 % -> 82 % on an image of three
 * layers, wall time equal. */
#define LAZY_BUFFERS	6
/* In buffers that only the layer with the large window may take, when the
 * layers that wait for it hold all others: without them nobody could go on. */
#define N_RESERVED	2

enum buf_state { FREE, TAKEN, QUEUED };

struct buf {
	u8 *ptr;		/* in buffers: NULL until first taken */
	u32 nbytes;
	u8 users;		/* in: consumers still to come (hash, inflate) */
	u8 state;
	int32_t next;		/* in its layer's queue, or in the free list */
};

/* One direction of a layer: what to hash, how far, and whether to write it. */
struct stream {
	struct lt_sha256_state sha;
	int32_t cur;		/* buffer being hashed, -1: none waits */
	u32 cur_off;		/* bytes of it hashed already */
	u32 n_waiting;		/* buffers from 'cur' on */
	u64 pos;		/* bytes hashed (and written) so far */
	bool busy;
	bool hash;
	bool write;
};

struct layer {
	bool used;
	bool ended;		/* no more input will come */
	bool inflating;
	bool inflated;		/* codec finished, last out buffer queued */
	bool more_out;		/* codec stopped because its buffer was full */
	bool window_wait;
	bool done;
	int status;
	int os_errno;
	int fd;
	u32 flags;
	u64 in_size;

	lt_codec *codec;	/* NULL: nothing to inflate */
	int32_t infl_cur;
	u32 infl_off;
	u64 infl_pos;
	int32_t out_cur;	/* being filled */
	u32 out_fill;

	int32_t in_tail;
	int32_t out_tail;
	struct stream in;
	struct stream out;
	u64 out_total;
	struct lt_result result;
};

struct lt_pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_t threads[MAX_WORKERS];
	u32 n_threads;
	bool stopping;
	int efd;

	struct lt_pool_config cfg;
	struct buf *in, *out;
	int32_t in_free, in_reserve, out_free;
	u32 n_in_reserve, n_in_free, n_out_free, n_in_touched, n_in_queued;
	bool want_in;

	struct layer layers[MAX_LAYERS];
	u32 n_layers;
	u32 n_inflating;
	int32_t window_owner;	/* the one layer allowed a large zstd window */
	lt_codec *spare[MAX_SPARE_CODECS];
	u32 n_spare;

	struct lt_event *events;	/* ring */
	u32 n_events_max, ev_head, ev_count;

	u64 idle_ns, inflate_ns, hash_ns, write_ns;
	u64 pair_nbytes, single_nbytes;
};

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

/* --- Events and free lists (lock held) --------------------------------- */

/* The ring holds DONE per layer, OUT per out buffer and one IN_FREE, so it
 * cannot overflow. */
static void post(lt_pool *p, int kind, int32_t layer, int32_t buf, u32 nbytes)
{
	struct lt_event *e =
		&p->events[(p->ev_head + p->ev_count) % p->n_events_max];
	const u64 one = 1;
	ssize_t n;

	*e = (struct lt_event){ kind, layer, buf, nbytes };
	if (p->ev_count++ == 0) {
		/* Cannot fail: the counter is 0 or 1, far from its limit. */
		n = write(p->efd, &one, sizeof(one));
		(void)n;
	}
}

/* Whoever was refused an in buffer may ask again. */
static void call_takers(lt_pool *p)
{
	if (p->want_in) {
		p->want_in = false;
		post(p, LT_EVENT_IN_FREE, -1, -1, 0);
	}
}

static void in_release(lt_pool *p, int32_t b)
{
	const bool reserved = (u32)b >= p->cfg.n_in;
	int32_t *list = reserved ? &p->in_reserve : &p->in_free;

	if (p->in[b].state == QUEUED)
		p->n_in_queued--;
	p->in[b].state = FREE;
	p->in[b].next = *list;
	*list = b;
	if (reserved)
		p->n_in_reserve++;
	else
		p->n_in_free++;
	call_takers(p);
}

static void out_release(lt_pool *p, int32_t b)
{
	p->out[b].state = FREE;
	p->out[b].next = p->out_free;
	p->out_free = b;
	p->n_out_free++;
	pthread_cond_broadcast(&p->work);
}

/* One consumer of an in buffer is past it. */
static void in_consumed(lt_pool *p, struct layer *l, int32_t b)
{
	if (--p->in[b].users)
		return;
	if (l->in_tail == b)
		l->in_tail = -1;
	in_release(p, b);
}

/* --- End of a layer (lock held) ----------------------------------------- */

static void codec_put(lt_pool *p, struct layer *l, int32_t id)
{
	if (p->window_owner == id) {
		lt_codec_trim(l->codec);
		p->window_owner = -1;
		for (u32 i = 0; i < MAX_LAYERS; i++)
			p->layers[i].window_wait = false;
		pthread_cond_broadcast(&p->work);
	}
	if (l->codec && p->n_spare < MAX_SPARE_CODECS)
		p->spare[p->n_spare++] = l->codec;
	else
		lt_codec_free(l->codec);
	l->codec = NULL;
}

static void drop_buffers(lt_pool *p, struct layer *l)
{
	int32_t b, next;

	/* Both cursors walk the same list; the one that is behind holds it
	 * all.  Whichever is further on is met on the way. */
	for (b = l->in.cur; b >= 0; b = next) {
		next = p->in[b].next;
		in_consumed(p, l, b);
	}
	for (b = l->infl_cur; b >= 0; b = next) {
		next = p->in[b].next;
		in_consumed(p, l, b);
	}
	for (b = l->out.cur; b >= 0; b = next) {
		next = p->out[b].next;
		out_release(p, b);
	}
	if (l->out_cur >= 0)
		out_release(p, l->out_cur);
	l->in.cur = l->infl_cur = l->out.cur = l->out_cur = -1;
	l->in_tail = l->out_tail = -1;
	l->in.n_waiting = l->out.n_waiting = 0;
}

static void settle(lt_pool *p, int32_t id)
{
	struct layer *l = &p->layers[id];
	struct lt_result *r = &l->result;

	if (!l->used || l->done)
		return;
	if (l->inflating || l->in.busy || l->out.busy)
		return;
	if (l->status == LT_OK) {
		if (!l->ended || l->in.cur >= 0)
			return;
		if (l->codec && (!l->inflated || l->out.cur >= 0))
			return;
	}
	r->status = l->status;
	r->os_errno = l->os_errno;
	r->in_total = l->in.pos;
	r->error_offset = l->codec ? lt_codec_error_offset(l->codec) : 0;
	if (l->status == LT_OK) {
		lt_sha256_final(&l->in.sha, r->in_digest);
		if (l->out.hash) {
			lt_sha256_final(&l->out.sha, r->out_digest);
			r->out_total = l->out.pos;
		} else if (!(l->flags & LT_LAYER_DIGEST_ONLY)) {
			memcpy(r->out_digest, r->in_digest, 32);
			r->out_total = r->in_total;
		}
	}
	drop_buffers(p, l);
	codec_put(p, l, id);
	l->done = true;
	post(p, LT_EVENT_DONE, id, -1, 0);
}

static void fail(struct layer *l, int status, int os_errno)
{
	if (l->status == LT_OK) {
		l->status = status;
		l->os_errno = os_errno;
	}
}

/* --- Inflate ------------------------------------------------------------- */

static bool can_inflate(const lt_pool *p, const struct layer *l)
{
	if (!l->used || l->done || l->status != LT_OK || !l->codec)
		return false;
	if (l->inflating || l->inflated || l->window_wait)
		return false;
	if (l->infl_cur < 0 && !l->ended && !l->more_out)
		return false;
	return l->out_cur >= 0 || p->out_free >= 0;
}

/* Append the buffer being filled to the queue of the out stream. */
static void out_enqueue(lt_pool *p, int32_t id, struct layer *l)
{
	int32_t b = l->out_cur;
	u32 nbytes = l->out_fill;

	l->out_cur = -1;
	l->out_fill = 0;
	if (nbytes == 0) {
		out_release(p, b);
		return;
	}
	l->out_total += nbytes;
	p->out[b].nbytes = nbytes;
	p->out[b].next = -1;
	if (!l->out.hash) {		/* stored layer, streamed: nothing to hash */
		post(p, LT_EVENT_OUT, id, b, nbytes);
		return;
	}
	p->out[b].state = QUEUED;
	if (l->out.cur < 0)
		l->out.cur = b;
	else
		p->out[l->out_tail].next = b;
	l->out_tail = b;
	l->out.n_waiting++;
}

/* Fill at most one out buffer from at most one in buffer. */
static void run_inflate(lt_pool *p, int32_t id)
{
	struct layer *l = &p->layers[id];
	const int32_t b = l->infl_cur;
	const bool last = b < 0 && l->ended;
	bool finished = false;
	/* A pointer to nothing still takes part in sums below: not NULL. */
	const u8 *in = b >= 0 ? p->in[b].ptr + l->infl_off : (const u8 *)"";
	size_t in_left = b >= 0 ? p->in[b].nbytes - l->infl_off : 0;
	size_t used = 0, made = 0, n_in, n_out;
	size_t room;
	u8 *out;
	int status;
	u64 t;

	if (l->out_cur < 0) {
		l->out_cur = p->out_free;
		p->out_free = p->out[l->out_cur].next;
		p->n_out_free--;
		p->out[l->out_cur].state = TAKEN;
	}
	out = p->out[l->out_cur].ptr + l->out_fill;
	room = p->cfg.out_nbytes - l->out_fill;
	l->inflating = true;
	p->n_inflating++;
	pthread_mutex_unlock(&p->lock);

	t = now_ns();
	do {
		status = lt_codec_step(l->codec, in + used,
				       lt_min(in_left - used, LT_STEP_MAX),
				       out + made, room - made, &n_in, &n_out);
		used += n_in;
		made += n_out;
	} while (status == LT_OK && made < room && used < in_left);
	if (status == LT_OK && last && made < room) {
		status = lt_codec_finish(l->codec);
		finished = status == LT_OK;
	}
	t = now_ns() - t;

	pthread_mutex_lock(&p->lock);
	p->inflate_ns += t;
	l->inflating = false;
	l->inflated = finished;
	p->n_inflating--;
	l->out_fill += (u32)made;
	l->more_out = made == room;
	if (b >= 0) {
		l->infl_off += (u32)used;
		l->infl_pos += used;
		if (l->infl_off == p->in[b].nbytes) {
			l->infl_cur = p->in[b].next;
			l->infl_off = 0;
			in_consumed(p, l, b);
		}
	}
	if (status == LT_WINDOW_WAIT) {
		if (p->window_owner < 0 || p->window_owner == id) {
			p->window_owner = id;
			lt_codec_grant_window(l->codec);
			call_takers(p);
		} else {
			l->window_wait = true;
		}
	} else if (status < 0) {
		fail(l, status, 0);
	}
	if (l->status == LT_OK &&
	    (l->inflated || l->out_fill == p->cfg.out_nbytes))
		out_enqueue(p, id, l);
	settle(p, id);
	pthread_cond_broadcast(&p->work);
}

/* --- Hash and write ------------------------------------------------------ */

struct work {
	int32_t id;
	struct layer *l;
	struct stream *s;
	const u8 *ptr;
	u32 nbytes;
	bool is_out;
};

/* The stream's oldest unhashed bytes, if no worker is on it. */
static bool hash_ready(const struct layer *l, const struct stream *s)
{
	return l->used && !l->done && l->status == LT_OK && !s->busy &&
	       s->cur >= 0;
}

/* The two ready streams with the most buffers waiting. */
static u32 find_hash(lt_pool *p, struct work w[2])
{
	u32 n = 0;

	for (int32_t i = 0; i < MAX_LAYERS; i++) {
		struct layer *l = &p->layers[i];

		if (!l->used)
			continue;
		for (int k = 0; k < 2; k++) {
			struct stream *s = k ? &l->out : &l->in;
			struct work cand = { i, l, s, NULL, 0, k != 0 };

			if (!hash_ready(l, s))
				continue;
			if (n == 0) {
				w[n++] = cand;
			} else if (s->n_waiting > w[0].s->n_waiting) {
				w[1] = w[0];
				w[0] = cand;
				n = 2;
			} else if (n == 1) {
				w[n++] = cand;
			} else if (s->n_waiting > w[1].s->n_waiting) {
				w[1] = cand;
			}
		}
	}
	return n;
}

static int write_all(int fd, const u8 *p, size_t n, u64 off)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? errno : EIO;
		p += r;
		n -= (size_t)r;
		off += (u64)r;
	}
	return 0;
}

/* The worker is past w->nbytes bytes of the stream. */
static void hash_advance(lt_pool *p, struct work *w)
{
	struct stream *s = w->s;
	struct buf *bufs = w->is_out ? p->out : p->in;
	const int32_t b = s->cur;

	s->busy = false;
	s->pos += w->nbytes;
	s->cur_off += w->nbytes;
	if (s->cur_off < bufs[b].nbytes)
		return;
	s->cur = bufs[b].next;
	s->cur_off = 0;
	s->n_waiting--;
	if (!w->is_out) {
		in_consumed(p, w->l, b);
	} else if (w->l->flags & LT_LAYER_STREAM_OUT &&
		   w->l->status == LT_OK) {
		p->out[b].state = TAKEN;
		post(p, LT_EVENT_OUT, w->id, b, p->out[b].nbytes);
	} else {
		out_release(p, b);
	}
}

static void run_hash(lt_pool *p, struct work *w, u32 n)
{
	int err[2] = { 0, 0 };
	u64 t0, t1, t2;

	for (u32 i = 0; i < n; i++) {
		const struct buf *b =
			&(w[i].is_out ? p->out : p->in)[w[i].s->cur];

		w[i].ptr = b->ptr + w[i].s->cur_off;
		w[i].nbytes = b->nbytes - w[i].s->cur_off;
		w[i].s->busy = true;
	}
	if (n == 2) {
		u32 common = w[0].nbytes < w[1].nbytes ? w[0].nbytes
						       : w[1].nbytes;
		w[0].nbytes = w[1].nbytes = common;
	}
	pthread_mutex_unlock(&p->lock);

	t0 = now_ns();
	if (n == 2)
		lt_sha256_update2(&w[0].s->sha, w[0].ptr, w[0].nbytes,
				  &w[1].s->sha, w[1].ptr, w[1].nbytes);
	else
		lt_sha256_update(&w[0].s->sha, w[0].ptr, w[0].nbytes);
	t1 = now_ns();
	for (u32 i = 0; i < n; i++)
		if (w[i].s->write)
			err[i] = write_all(w[i].l->fd, w[i].ptr, w[i].nbytes,
					   w[i].s->pos);
	t2 = now_ns();

	pthread_mutex_lock(&p->lock);
	p->hash_ns += t1 - t0;
	p->write_ns += t2 - t1;
	if (n == 2)
		p->pair_nbytes += 2 * (u64)w[0].nbytes;
	else
		p->single_nbytes += w[0].nbytes;
	for (u32 i = 0; i < n; i++) {
		if (err[i])
			fail(w[i].l, LT_ERR_WRITE, err[i]);
		hash_advance(p, &w[i]);
	}
	for (u32 i = 0; i < n; i++)
		settle(p, w[i].id);
	pthread_cond_broadcast(&p->work);
}

/* --- Workers --------------------------------------------------------------- */

/* The layer to inflate: the one with the most input left, so that the longest
 * chain starts first. */
static int32_t find_inflate(const lt_pool *p)
{
	int32_t best = -1;
	u64 best_left = 0;

	for (int32_t i = 0; i < MAX_LAYERS; i++) {
		const struct layer *l = &p->layers[i];
		u64 left;

		if (!can_inflate(p, l))
			continue;
		left = l->in_size > l->infl_pos ? l->in_size - l->infl_pos : 0;
		if (best < 0 || left > best_left) {
			best = i;
			best_left = left;
		}
	}
	return best;
}

/* One job, if there is one; called and returns with the lock held. */
static bool run_one(lt_pool *p)
{
	struct work w[2];
	u32 n = find_hash(p, w);
	int32_t id;

	if (n == 2 && p->n_out_free * 2 <= p->cfg.n_out) {
		run_hash(p, w, 2);
		return true;
	}
	id = find_inflate(p);
	if (id >= 0) {
		run_inflate(p, id);
		return true;
	}
	if (n == 2) {
		run_hash(p, w, 2);
		return true;
	}
	if (n == 1 &&
	    (p->n_inflating == 0 || w[0].s->n_waiting >= LAZY_BUFFERS)) {
		run_hash(p, w, 1);
		return true;
	}
	return false;
}

static void *worker(void *arg)
{
	lt_pool *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		u64 t;

		if (run_one(p))
			continue;
		t = p->n_layers ? now_ns() : 0;
		pthread_cond_wait(&p->work, &p->lock);
		if (t)
			p->idle_ns += now_ns() - t;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* --- The pool itself --------------------------------------------------------- */

lt_pool *lt_pool_new(const struct lt_pool_config *c)
{
	sigset_t all, old;
	lt_pool *p;

	if (!c->n_workers || c->n_workers > MAX_WORKERS || !c->n_in ||
	    !c->in_nbytes || c->n_out < 2 || !c->out_nbytes)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->cfg = *c;
	p->window_owner = -1;
	p->n_events_max = MAX_LAYERS + c->n_out + 1;
	p->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->in = calloc(c->n_in + N_RESERVED, sizeof(*p->in));
	p->out = calloc(c->n_out, sizeof(*p->out));
	p->events = calloc(p->n_events_max, sizeof(*p->events));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	if (p->efd < 0 || !p->in || !p->out || !p->events)
		goto fail;
	p->in_free = p->in_reserve = p->out_free = -1;
	for (u32 i = c->n_in + N_RESERVED; i-- > 0;)
		in_release(p, (int32_t)i);
	for (u32 i = c->n_out; i-- > 0;) {
		if (posix_memalign((void **)&p->out[i].ptr, 4096,
				   c->out_nbytes))
			goto fail;
		p->out[i].next = p->out_free;
		p->out_free = (int32_t)i;
	}
	p->n_out_free = c->n_out;

	/* Signals belong to the thread that runs Python. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (p->n_threads < c->n_workers &&
	       pthread_create(&p->threads[p->n_threads], NULL, worker, p) == 0)
		p->n_threads++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (p->n_threads == 0)
		goto fail;
	return p;
fail:
	lt_pool_free(p);
	return NULL;
}

void lt_pool_free(lt_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (u32 i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	for (u32 i = 0; i < MAX_LAYERS; i++)
		lt_codec_free(p->layers[i].codec);
	for (u32 i = 0; i < p->n_spare; i++)
		lt_codec_free(p->spare[i]);
	for (u32 i = 0; p->in && i < p->cfg.n_in + N_RESERVED; i++)
		free(p->in[i].ptr);
	for (u32 i = 0; p->out && i < p->cfg.n_out; i++)
		free(p->out[i].ptr);
	if (p->efd >= 0)
		close(p->efd);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p->events);
	free(p->in);
	free(p->out);
	free(p);
}

int lt_pool_eventfd(const lt_pool *p)
{
	return p->efd;
}

int32_t lt_pool_layer_open(lt_pool *p, const struct lt_layer_config *c)
{
	const bool digest_only = c->flags & LT_LAYER_DIGEST_ONLY;
	const bool stored = c->format == LT_FORMAT_NONE;
	const bool stream = c->flags & LT_LAYER_STREAM_OUT;
	struct layer *l = NULL;
	lt_codec *codec = NULL;
	int32_t id;
	int status;

	if (digest_only && c->flags & (LT_LAYER_WRITE_OUT | LT_LAYER_STREAM_OUT))
		return LT_ERR_MISUSE;
	if (c->flags & LT_LAYER_WRITE_IN && c->flags & LT_LAYER_WRITE_OUT)
		return LT_ERR_MISUSE;
	pthread_mutex_lock(&p->lock);
	for (id = 0; id < MAX_LAYERS && p->layers[id].used; id++)
		;
	if (id == MAX_LAYERS) {
		pthread_mutex_unlock(&p->lock);
		return LT_ERR_MISUSE;
	}
	if (!digest_only && (!stored || stream)) {
		codec = p->n_spare ? p->spare[--p->n_spare] : lt_codec_new();
		status = codec ? lt_codec_begin(codec, c->format,
						c->flags & LT_LAYER_CHECK_CRC,
						false, c->out_budget,
						c->window_max)
			       : LT_ERR_MEMORY;
		if (status != LT_OK) {
			lt_codec_free(codec);
			pthread_mutex_unlock(&p->lock);
			return status;
		}
	}
	l = &p->layers[id];
	*l = (struct layer){ .used = true, .codec = codec, .fd = c->fd,
			     .flags = c->flags, .in_size = c->in_size };
	l->infl_cur = l->out_cur = l->in_tail = l->out_tail = -1;
	l->in.cur = l->out.cur = -1;
	l->in.hash = true;
	l->out.hash = codec && !stored;
	l->in.write = c->flags & LT_LAYER_WRITE_IN ||
		      (stored && c->flags & LT_LAYER_WRITE_OUT);
	l->out.write = !stored && c->flags & LT_LAYER_WRITE_OUT;
	lt_sha256_init(&l->in.sha);
	lt_sha256_init(&l->out.sha);
	p->n_layers++;
	pthread_mutex_unlock(&p->lock);
	return id;
}

int32_t lt_pool_take(lt_pool *p, int32_t layer, uint32_t keep)
{
	int32_t *list = NULL, b = -1;

	pthread_mutex_lock(&p->lock);
	if (p->n_in_free > keep)
		list = &p->in_free;
	else if (layer >= 0 && layer == p->window_owner && keep == 0 &&
		 p->n_in_reserve)
		list = &p->in_reserve;
	if (list) {
		b = *list;
		if (!p->in[b].ptr) {
			if (posix_memalign((void **)&p->in[b].ptr, 4096,
					   p->cfg.in_nbytes)) {
				p->in[b].ptr = NULL;
				b = -1;
			} else {
				p->n_in_touched++;
			}
		}
	}
	if (b >= 0) {
		*list = p->in[b].next;
		if (list == &p->in_free)
			p->n_in_free--;
		else
			p->n_in_reserve--;
		p->in[b].state = TAKEN;
	} else {
		p->want_in = true;
	}
	pthread_mutex_unlock(&p->lock);
	return b;
}

void *lt_pool_in_ptr(lt_pool *p, int32_t buf)
{
	return p->in[buf].ptr;
}

void lt_pool_give_back(lt_pool *p, int32_t buf)
{
	pthread_mutex_lock(&p->lock);
	in_release(p, buf);
	pthread_mutex_unlock(&p->lock);
}

int lt_pool_submit(lt_pool *p, int32_t layer, int32_t buf, uint32_t nbytes)
{
	struct layer *l = &p->layers[layer];
	struct buf *b = &p->in[buf];
	int status = LT_OK;

	pthread_mutex_lock(&p->lock);
	if (!l->used || l->ended || nbytes > p->cfg.in_nbytes ||
	    b->state != TAKEN)
		status = LT_ERR_MISUSE;
	else if (l->done || l->status != LT_OK)
		status = l->status;
	if (status != LT_OK || nbytes == 0) {
		if (b->state == TAKEN)
			in_release(p, buf);
		pthread_mutex_unlock(&p->lock);
		return status;
	}
	b->state = QUEUED;
	b->nbytes = nbytes;
	b->next = -1;
	b->users = l->codec ? 2 : 1;
	p->n_in_queued++;
	if (l->in_tail >= 0)
		p->in[l->in_tail].next = buf;
	l->in_tail = buf;
	if (l->in.cur < 0)
		l->in.cur = buf;
	if (l->codec && l->infl_cur < 0)
		l->infl_cur = buf;
	l->in.n_waiting++;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	return LT_OK;
}

int lt_pool_layer_end(lt_pool *p, int32_t layer)
{
	struct layer *l = &p->layers[layer];
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (l->used && !l->ended) {
		l->ended = true;
		status = LT_OK;
		settle(p, layer);
		pthread_cond_broadcast(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

int lt_pool_layer_cancel(lt_pool *p, int32_t layer)
{
	struct layer *l = &p->layers[layer];
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (l->used) {
		status = LT_OK;
		l->ended = true;
		fail(l, LT_ERR_CANCELLED, 0);
		settle(p, layer);
		pthread_cond_broadcast(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

void *lt_pool_out_ptr(lt_pool *p, int32_t buf)
{
	return p->out[buf].ptr;
}

void lt_pool_out_done(lt_pool *p, int32_t layer, int32_t buf)
{
	(void)layer;
	pthread_mutex_lock(&p->lock);
	out_release(p, buf);
	pthread_mutex_unlock(&p->lock);
}

size_t lt_pool_poll(lt_pool *p, struct lt_event *events, size_t n)
{
	size_t got = 0;
	u64 count;
	ssize_t r;

	pthread_mutex_lock(&p->lock);
	while (got < n && p->ev_count) {
		events[got++] = p->events[p->ev_head];
		p->ev_head = (p->ev_head + 1) % p->n_events_max;
		p->ev_count--;
	}
	if (p->ev_count == 0) {
		r = read(p->efd, &count, sizeof(count));
		(void)r;
	}
	pthread_mutex_unlock(&p->lock);
	return got;
}

int lt_pool_layer_result(lt_pool *p, int32_t layer, struct lt_result *ret)
{
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (p->layers[layer].used && p->layers[layer].done) {
		*ret = p->layers[layer].result;
		status = LT_OK;
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

int lt_pool_layer_free(lt_pool *p, int32_t layer)
{
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (p->layers[layer].used && p->layers[layer].done) {
		p->layers[layer].used = false;
		p->n_layers--;
		status = LT_OK;
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

void lt_pool_stats(lt_pool *p, struct lt_pool_stats *ret)
{
	pthread_mutex_lock(&p->lock);
	*ret = (struct lt_pool_stats){
		.idle_ns = p->idle_ns,
		.inflate_ns = p->inflate_ns,
		.hash_ns = p->hash_ns,
		.write_ns = p->write_ns,
		.pair_nbytes = p->pair_nbytes,
		.single_nbytes = p->single_nbytes,
		.in_used = p->cfg.n_in + N_RESERVED - p->n_in_free -
			   p->n_in_reserve,
		.in_queued = p->n_in_queued,
		.in_touched = p->n_in_touched,
		.out_used = p->cfg.n_out - p->n_out_free,
		.n_layers = p->n_layers,
	};
	pthread_mutex_unlock(&p->lock);
}
