/*
 * lt_pool.c: the pool's interface (lt_api.h says what each call promises,
 * lt_pool.h what becomes of a buffer).
 *
 * Each call takes the lock, changes what the caller owns of the state, wakes
 * the workers where that gave them work, and never waits for one of them.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool/lt_pool.h"

/* 'n' buffers in one piece, untouched.  In huge pages where the system has them:
 * 40 MiB in small ones are 10,000 page faults. */
static u8 *buffers_new(u32 n, u32 nbytes)
{
	const size_t huge = 2 << 20;
	const size_t size = ((size_t)n * nbytes + huge - 1) / huge * huge;
	void *memory = NULL;

	if (posix_memalign(&memory, huge, size))
		return NULL;
	madvise(memory, size, MADV_HUGEPAGE);
	return memory;
}

lt_pool *lt_pool_new(const struct lt_pool_config *c)
{
	sigset_t all, old;
	lt_pool *p;

	if (!c->n_workers || c->n_workers > MAX_WORKERS || !c->n_in ||
	    !c->in_nbytes || c->n_out < 2 || !c->out_nbytes ||
	    (c->n_pieces && !c->piece_in_nbytes))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->cfg = *c;
	p->window_owner = -1;
	p->n_pieces = (u32)lt_min(c->n_pieces, MAX_PIECES);
	p->n_events_max = MAX_LAYERS + c->n_out + 1;	/* see lt_event_post */
	p->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->in = calloc(c->n_in + N_RESERVED, sizeof(*p->in));
	p->out = calloc(c->n_out, sizeof(*p->out));
	p->events = calloc(p->n_events_max, sizeof(*p->events));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	p->in_memory = buffers_new(c->n_in + N_RESERVED, c->in_nbytes);
	p->out_memory = buffers_new(c->n_out, c->out_nbytes);
	if (p->efd < 0 || !p->in || !p->out || !p->events || !p->in_memory ||
	    !p->out_memory)
		goto fail;
	p->in_free = p->in_reserve = p->out_free = -1;
	/* From the last, so that the first are taken first: what was never
	 * taken was never touched, and costs no memory. */
	for (u32 i = c->n_in + N_RESERVED; i-- > 0;)
		lt_in_release(p, (int32_t)i);
	for (u32 i = c->n_out; i-- > 0;) {
		p->out[i].ptr = p->out_memory + (size_t)i * c->out_nbytes;
		p->out[i].next = p->out_free;
		p->out_free = (int32_t)i;
	}
	p->n_out_free = c->n_out;

	/* Signals belong to the thread that runs Python. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (p->n_threads < c->n_workers &&
	       pthread_create(&p->threads[p->n_threads], NULL, lt_pool_worker, p) == 0)
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
	for (u32 i = 0; i < MAX_PIECES; i++) {
		lt_ahead_free(p->pieces[i].ahead);
		free(p->pieces[i].joined);
	}
	free(p->in_memory);
	free(p->out_memory);
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
	/* What goes to fd is the blob itself: there is nothing to spool. */
	if (c->spool_fd >= 0 && (stored || c->flags & LT_LAYER_WRITE_IN))
		return LT_ERR_MISUSE;
	pthread_mutex_lock(&p->lock);
	for (id = 0; id < MAX_LAYERS && p->layers[id].used; id++)
		;
	if (id == MAX_LAYERS) {
		pthread_mutex_unlock(&p->lock);
		return LT_ERR_MISUSE;
	}
	/* A stored blob's bytes are its output; only a caller who reads them
	 * as such needs them copied to out buffers. */
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
	*l = (struct layer){ .used = true, .codec = codec,
			     .flags = c->flags, .in_size = c->in_size,
			     .format = c->format };
	l->infl_cur = l->out_cur = l->in_tail = l->out_tail = -1;
	l->in.cur = l->out.cur = -1;
	l->in.hash = true;
	l->out.hash = codec && !stored;
	/* Written where they are hashed: stored output is the in stream. */
	l->in.fd = c->spool_fd;
	l->out.fd = -1;
	if (c->flags & LT_LAYER_WRITE_IN ||
	    (stored && c->flags & LT_LAYER_WRITE_OUT))
		l->in.fd = c->fd;
	else if (c->flags & LT_LAYER_WRITE_OUT)
		l->out.fd = c->fd;
	l->in.from = c->in_from;
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
	/* All others may be full of blobs that wait for the one layer that has
	 * the leave for a large window.  It must go on for them to go on. */
	if (p->n_in_free > keep)
		list = &p->in_free;
	else if (layer >= 0 && layer == p->window_owner && keep == 0 &&
		 p->n_in_reserve)
		list = &p->in_reserve;
	if (list) {
		b = *list;
		if (!p->in[b].ptr) {
			p->in[b].ptr = p->in_memory +
				       (size_t)b * p->cfg.in_nbytes;
			p->n_in_touched++;
		}
		*list = p->in[b].next;
		if (list == &p->in_free)
			p->n_in_free--;
		else
			p->n_in_reserve--;
		p->in[b].state = TAKEN;
	} else {
		p->want_in = true;
		pthread_cond_broadcast(&p->work); /* no stream waits for a partner now */
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
	lt_in_release(p, buf);
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
			lt_in_release(p, buf);
		pthread_mutex_unlock(&p->lock);
		return status;
	}
	b->state = QUEUED;
	b->nbytes = nbytes;
	b->next = -1;
	b->users = l->codec ? 2 : 1;
	p->n_in_queued++;
	l->submitted += nbytes;
	/* The tail is there as long as one of the two is not past it; the other
	 * has run out (-1) and begins again with this one. */
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
		/* If all was done before, no worker would settle it. */
		lt_layer_settle(p, layer);
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
		lt_layer_fail(l, LT_ERR_CANCELLED, 0);
		lt_layer_settle(p, layer);
		pthread_cond_broadcast(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

int lt_pool_layer_end_spool(lt_pool *p, int32_t layer)
{
	struct layer *l = &p->layers[layer];
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (l->used) {
		status = LT_OK;
		if (l->out.fd >= 0)
			l->in.fd = -1;
	}
	pthread_mutex_unlock(&p->lock);
	return status;
}

void *lt_pool_out_ptr(lt_pool *p, int32_t buf)
{
	return p->out[buf].ptr;
}

int lt_pool_out_done(lt_pool *p, int32_t buf)
{
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (p->out[buf].state == LENT) {
		lt_out_release(p, buf);
		status = LT_OK;
	}
	pthread_mutex_unlock(&p->lock);
	return status;
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
	/* Under the lock, so that it is readable exactly while there is one. */
	if (p->ev_count == 0) {
		r = read(p->efd, &count, sizeof(count));
		(void)r;
	}
	pthread_mutex_unlock(&p->lock);
	return got;
}

int lt_pool_layer_spent(lt_pool *p, int32_t layer, struct lt_layer_spent *ret)
{
	const struct layer *l = &p->layers[layer];
	int status = LT_ERR_MISUSE;

	pthread_mutex_lock(&p->lock);
	if (l->used) {
		ret->in_nbytes = l->in.pos;
		ret->out_nbytes = l->out_total + l->out_fill;
		ret->work_ns = l->work_ns;
		status = LT_OK;
	}
	pthread_mutex_unlock(&p->lock);
	return status;
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
		.ahead_ns = p->ahead_ns,
		.ahead_nbytes = p->ahead_nbytes,
		.lock_wait_ns = p->lock_wait_ns,
		.n_locks = p->n_locks,
		.n_lock_waits = p->n_lock_waits,
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
