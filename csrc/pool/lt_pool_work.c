/*
 * lt_pool_work.c: which job a worker does next, and the jobs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "pool/lt_pool.h"

/* A lone stream waits for a partner while another worker inflates, until this
 * many of its buffers wait: 2-lane share 71 % -> 82 % on an image of three
 * layers, wall time equal. */
#define LAZY_BUFFERS	6
/* The same for a layer that inflates nothing, whose buffers are larger: pulls
 * that only hash did 35 % of their bytes in two lanes, and do 60 % now. */
#define LAZY_IN_BUFFERS	4

/* --- Inflate ------------------------------------------------------------- */

static bool can_inflate(lt_pool *p, int32_t id)
{
	const struct layer *l = &p->layers[id];
	const struct piece *piece;

	if (!l->used || l->done || l->status != LT_OK || !l->codec)
		return false;
	if (l->inflating || l->inflated || l->window_wait)
		return false;
	if (l->infl_cur < 0 && !l->ended && !l->more_out)
		return false;
	piece = lt_piece_here(p, id);
	if (piece && piece->state < READY)
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
		lt_out_release(p, b);
		return;
	}
	l->out_total += nbytes;
	p->out[b].nbytes = nbytes;
	p->out[b].next = -1;
	if (!l->out.hash) {		/* stored layer, streamed: nothing to hash */
		p->out[b].state = LENT;
		lt_event_post(p, LT_EVENT_OUT, id, b, nbytes);
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

/* The inflater is past 'nbytes' bytes of input. */
static void infl_advance(lt_pool *p, struct layer *l, size_t nbytes)
{
	l->infl_pos += nbytes;
	while (nbytes) {
		const int32_t b = l->infl_cur;
		const u32 n = (u32)lt_min(nbytes, p->in[b].nbytes - l->infl_off);

		nbytes -= n;
		l->infl_off += n;
		if (l->infl_off == p->in[b].nbytes) {
			l->infl_cur = p->in[b].next;
			l->infl_off = 0;
			lt_in_consumed(p, l, b);
		}
	}
}

/* What an inflate job did, without the lock. */
struct inflated {
	int status;
	bool finished;
	size_t used, made;
	enum piece_state piece;		/* what becomes of the piece */
};

static struct inflated decode(struct layer *l, const u8 *in, size_t in_nbytes,
			      bool last, u8 *out, size_t room)
{
	struct inflated r = { .status = LT_OK };
	size_t n_in, n_out;

	do {
		r.status = lt_codec_step(l->codec, in + r.used,
					 in_nbytes - r.used, out + r.made,
					 room - r.made, &n_in, &n_out);
		r.used += n_in;
		r.made += n_out;
	} while (r.status == LT_OK && r.made < room && r.used < in_nbytes);
	if (r.status == LT_OK && last && r.made < room) {
		r.status = lt_codec_finish(l->codec);
		r.finished = r.status == LT_OK;
	}
	return r;
}

/* The same from a piece that begins where the codec stands. */
static struct inflated take(struct layer *l, const struct piece *piece, u8 *out,
			    size_t room)
{
	struct inflated r = { .status = LT_OK, .piece = TAKEN_IN };

	if (piece->state != TAKEN_IN &&
	    !lt_codec_adopt(l->codec, piece->ahead)) {
		/* It may have output left of what comes before; else the
		 * piece does not belong here. */
		r = decode(l, (const u8 *)"", 0, false, out, room);
		r.piece = r.made ? READY : NO_PIECE;
	} else if (lt_codec_take(l->codec, piece->ahead, out, room, &r.made)) {
		r.used = lt_ahead_in_nbytes(piece->ahead);
		r.piece = NO_PIECE;
	}
	return r;
}

/*
 * Fill at most one out buffer from at most one in buffer, or from a piece.
 *
 * Three parts: with the lock, take an out buffer and note where to read;
 * without it, decode; with it again, move the cursors and say what comes next.
 * In between the caller may have cancelled the layer, which only shows in
 * l->status; its buffers stay until 'inflating' is false.
 */
static void run_inflate(lt_pool *p, int32_t id)
{
	struct layer *l = &p->layers[id];
	const int32_t b = l->infl_cur;
	const bool last = b < 0 && l->ended;
	struct piece *piece = lt_piece_here(p, id);
	/* A pointer to nothing still takes part in sums: not NULL. */
	const u8 *in = b >= 0 ? p->in[b].ptr + l->infl_off : (const u8 *)"";
	size_t in_nbytes = b >= 0 ? p->in[b].nbytes - l->infl_off : 0;
	struct inflated r;
	size_t room;
	u8 *out;
	u64 t;

	if (l->out_cur < 0) {
		l->out_cur = p->out_free;
		p->out_free = p->out[l->out_cur].next;
		p->n_out_free--;
		p->out[l->out_cur].state = TAKEN;
	}
	out = p->out[l->out_cur].ptr + l->out_fill;
	room = p->cfg.out_nbytes - l->out_fill;
	/* Pieces begin behind what this job may read: not too far. */
	if (p->n_pieces)
		in_nbytes = lt_min(in_nbytes, 2 * (size_t)p->cfg.piece_in_nbytes);
	in_nbytes = lt_piece_limit(p, id, in_nbytes);
	l->infl_limit = l->infl_pos + in_nbytes;
	l->inflating = true;
	p->n_inflating++;
	pthread_mutex_unlock(&p->lock);

	t = lt_now_ns();
	r = piece ? take(l, piece, out, room)
		  : decode(l, in, in_nbytes, last, out, room);
	t = lt_now_ns() - t;

	lt_pool_lock(p);
	p->inflate_ns += t;
	l->work_ns += t;
	l->inflating = false;
	l->inflated = r.finished;
	p->n_inflating--;
	l->out_fill += (u32)r.made;
	l->more_out = r.made == room;
	if (piece) {
		if (r.piece != READY)
			p->ahead_nbytes += r.made;
		if (r.used)
			l->n_adopted++;
		else if (r.piece == NO_PIECE)
			l->n_dropped++;
		piece->state = r.piece;
	} else {
		l->format = lt_codec_format(l->codec);
	}
	infl_advance(p, l, r.used);
	/* One layer at a time: the windows of many would be GiB. */
	if (r.status == LT_WINDOW_WAIT) {
		if (p->window_owner < 0 || p->window_owner == id) {
			p->window_owner = id;
			lt_codec_grant_window(l->codec);
			lt_call_takers(p);
		} else {
			l->window_wait = true;
		}
	} else if (r.status < 0) {
		lt_layer_fail(l, r.status, 0);
	}
	if (l->status == LT_OK &&
	    (l->inflated || l->out_fill == p->cfg.out_nbytes))
		out_enqueue(p, id, l);
	lt_layer_settle(p, id);
	pthread_cond_broadcast(&p->work);
}

/* --- Hash and write ------------------------------------------------------ */

struct work {
	int32_t id;
	struct layer *l;
	struct stream *s;
	const u8 *ptr;
	u32 nbytes;
	int fd;			/* where to write them, -1: nowhere */
	bool is_out;
};

/* The stream's oldest unhashed bytes, if no worker is on it. */
static bool hash_ready(const struct layer *l, const struct stream *s)
{
	return l->used && !l->done && l->status == LT_OK && !s->busy &&
	       s->cur >= 0;
}

/* The two ready streams with the most buffers waiting: what waits longest is
 * what holds most of the memory. */
static u32 find_hash(lt_pool *p, struct work w[2])
{
	u32 n = 0;

	for (int32_t i = 0; i < MAX_LAYERS; i++) {
		struct layer *l = &p->layers[i];

		if (!l->used)
			continue;
		for (int k = 0; k < 2; k++) {
			struct stream *s = k ? &l->out : &l->in;
			struct work cand = { i, l, s, NULL, 0, -1, k != 0 };

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

/* Write what the file of the stream does not have yet; 0 or an errno. */
static int write_new(const struct work *w)
{
	const u64 from = w->s->from, pos = w->s->pos;
	const u64 have = from > pos ? from - pos : 0;

	if (w->fd < 0 || have >= w->nbytes)
		return 0;
	return write_all(w->fd, w->ptr + have, w->nbytes - (size_t)have,
			 pos + have);
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
		lt_in_consumed(p, w->l, b);
	} else if (w->l->flags & LT_LAYER_STREAM_OUT &&
		   w->l->status == LT_OK) {
		p->out[b].state = LENT;
		lt_event_post(p, LT_EVENT_OUT, w->id, b, p->out[b].nbytes);
	} else {
		lt_out_release(p, b);
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
		w[i].fd = w[i].s->fd;
		w[i].s->busy = true;
	}
	/* As far as both go, so that no byte of the pair is hashed alone; the
	 * rest of the longer one waits for its next partner. */
	if (n == 2) {
		u32 common = w[0].nbytes < w[1].nbytes ? w[0].nbytes
						       : w[1].nbytes;
		w[0].nbytes = w[1].nbytes = common;
	}
	pthread_mutex_unlock(&p->lock);

	t0 = lt_now_ns();
	if (n == 2)
		lt_sha256_update2(&w[0].s->sha, w[0].ptr, w[0].nbytes,
				  &w[1].s->sha, w[1].ptr, w[1].nbytes);
	else
		lt_sha256_update(&w[0].s->sha, w[0].ptr, w[0].nbytes);
	t1 = lt_now_ns();
	for (u32 i = 0; i < n; i++)
		err[i] = write_new(&w[i]);
	t2 = lt_now_ns();

	lt_pool_lock(p);
	p->hash_ns += t1 - t0;
	p->write_ns += t2 - t1;
	if (n == 2)
		p->pair_nbytes += 2 * (u64)w[0].nbytes;
	else
		p->single_nbytes += w[0].nbytes;
	for (u32 i = 0; i < n; i++) {
		/* Not the writing: a disk that blocks is no fault of the layer. */
		w[i].l->work_ns += (t1 - t0) / n;
		/* Of a spool, what was written is right, and there is no more. */
		if (err[i] && !w[i].is_out && w[i].l->out.fd >= 0)
			w[i].s->fd = -1;
		else if (err[i])
			lt_layer_fail(w[i].l, LT_ERR_WRITE, err[i]);
		hash_advance(p, &w[i]);
	}
	for (u32 i = 0; i < n; i++)
		lt_layer_settle(p, w[i].id);
	pthread_cond_broadcast(&p->work);
}

/* --- Workers --------------------------------------------------------------- */

/* The layer to inflate: the one with the most input left, so that the longest
 * chain starts first. */
static int32_t find_inflate(lt_pool *p)
{
	int32_t best = -1;
	u64 best_left = 0;

	for (int32_t i = 0; i < MAX_LAYERS; i++) {
		const struct layer *l = &p->layers[i];
		u64 left;

		if (!can_inflate(p, i))
			continue;
		left = l->in_size > l->infl_pos ? l->in_size - l->infl_pos : 0;
		if (best < 0 || left > best_left) {
			best = i;
			best_left = left;
		}
	}
	return best;
}

/* Whether a lone stream should wait for another to be hashed with.  It never
 * waits for something that may not come: others inflate, or the layer has not
 * ended and nobody is short of buffers to go on with it. */
static bool waits_for_partner(const lt_pool *p, const struct work *w)
{
	if (w->l->codec)
		return p->n_inflating && w->s->n_waiting < LAZY_BUFFERS;
	return !w->l->ended && !p->want_in &&
	       w->s->n_waiting < LAZY_IN_BUFFERS;
}

/*
 * One job, if there is one; called and returns with the lock held.
 *
 * Inflating comes first, as it is the longest chain and makes work for others,
 * until half of the out buffers are used: then hashing does, which frees them.
 */
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
	if (n == 1 && !waits_for_partner(p, &w[0])) {
		run_hash(p, w, 1);
		return true;
	}
	return lt_piece_run(p);
}

void lt_pool_lock(lt_pool *p)
{
	u64 t;

	if (pthread_mutex_trylock(&p->lock)) {
		t = lt_now_ns();
		pthread_mutex_lock(&p->lock);
		p->lock_wait_ns += lt_now_ns() - t;
		p->n_lock_waits++;
	}
	p->n_locks++;
}

void *lt_pool_worker(void *arg)
{
	lt_pool *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		u64 t;

		if (run_one(p))
			continue;
		t = p->n_layers ? lt_now_ns() : 0;
		pthread_cond_wait(&p->work, &p->lock);
		if (t)
			p->idle_ns += lt_now_ns() - t;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}
