/*
 * lt_pool_state.c: what happens to buffers, to events and to finished layers.
 * Everything here runs with the pool's lock held.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "pool/lt_pool.h"

/* --- Events and free lists --------------------------------------------- */

/* The ring holds DONE per layer, OUT per out buffer and one IN_FREE, so it
 * cannot overflow. */
void lt_event_post(lt_pool *p, int kind, int32_t layer, int32_t buf, u32 nbytes)
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
void lt_call_takers(lt_pool *p)
{
	if (p->want_in) {
		p->want_in = false;
		lt_event_post(p, LT_EVENT_IN_FREE, -1, -1, 0);
	}
}

void lt_in_release(lt_pool *p, int32_t b)
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
	lt_call_takers(p);
}

void lt_out_release(lt_pool *p, int32_t b)
{
	p->out[b].state = FREE;
	p->out[b].next = p->out_free;
	p->out_free = b;
	p->n_out_free++;
	pthread_cond_broadcast(&p->work);
}

/* One consumer of an in buffer is past it. */
void lt_in_consumed(lt_pool *p, struct layer *l, int32_t b)
{
	if (--p->in[b].users)
		return;
	if (l->in_tail == b)
		l->in_tail = -1;
	lt_in_release(p, b);
}

/* --- End of a layer ----------------------------------------------------- */

static void codec_put(lt_pool *p, struct layer *l, int32_t id)
{
	if (p->window_owner == id) {
		/* The leave is free again: those who wait for it try anew,
		 * and the first to get the lock has it. */
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

	/* Both cursors walk the same list.  Each gives up its own hold on
	 * what it has still ahead; where both had one, the second frees. */
	for (b = l->in.cur; b >= 0; b = next) {
		next = p->in[b].next;
		lt_in_consumed(p, l, b);
	}
	for (b = l->infl_cur; b >= 0; b = next) {
		next = p->in[b].next;
		lt_in_consumed(p, l, b);
	}
	for (b = l->out.cur; b >= 0; b = next) {
		next = p->out[b].next;
		lt_out_release(p, b);
	}
	if (l->out_cur >= 0)
		lt_out_release(p, l->out_cur);
	l->in.cur = l->infl_cur = l->out.cur = l->out_cur = -1;
	l->in_tail = l->out_tail = -1;
	l->in.n_waiting = l->out.n_waiting = 0;
}

/* All was hashed; what came of it. */
static void measure(struct layer *l, struct lt_result *r)
{
	r->in_total = l->in.pos;
	lt_sha256_final(&l->in.sha, r->in_digest);
	if (l->flags & LT_LAYER_DIGEST_ONLY)
		return;
	if (l->out.hash) {
		r->out_total = l->out.pos;
		r->n_members = lt_codec_n_members(l->codec);
		r->format = lt_codec_format(l->codec);
		lt_sha256_final(&l->out.sha, r->out_digest);
	} else {		/* stored: out is in */
		r->out_total = r->in_total;
		r->n_members = r->in_total > 0;
		r->format = LT_FORMAT_NONE;
		memcpy(r->out_digest, r->in_digest, 32);
	}
}

void lt_layer_settle(lt_pool *p, int32_t id)
{
	struct layer *l = &p->layers[id];
	struct lt_result *r = &l->result;

	if (!l->used || l->done)
		return;
	/* A worker is on it and will call again. */
	if (l->inflating || l->in.busy || l->out.busy || l->n_ahead)
		return;
	/* A layer that failed has nothing to wait for. */
	if (l->status == LT_OK) {
		if (!l->ended || l->in.cur >= 0)
			return;
		if (l->codec && (!l->inflated || l->out.cur >= 0))
			return;
	}
	*r = (struct lt_result){
		.status = l->status,
		.os_errno = l->os_errno,
		.error_offset = l->codec ? lt_codec_error_offset(l->codec) : 0,
		.window = l->codec ? lt_codec_error_window(l->codec) : 0,
	};
	if (l->status == LT_OK)
		measure(l, r);
	lt_pieces_drop(p, id);
	drop_buffers(p, l);
	codec_put(p, l, id);
	l->done = true;
	lt_event_post(p, LT_EVENT_DONE, id, -1, 0);
}
