/*
 * lt_pool_ahead.c: what an idle worker does for a layer that only one can
 * inflate: it decodes a piece of it before its turn.
 *
 * A layer's bytes come out in order, so its inflater is a chain that one
 * worker carries on at a time.  With more layers at hand than workers that is
 * no loss.  When the last large layer is alone, all other workers would wait
 * for that chain.  Instead they look through what was submitted of its blob
 * for places to begin at, decode from there, and leave the piece for the
 * inflater, which takes it over in a quarter of the time.
 *
 * A piece costs more than decoding in turn (gzip: 1.3 to 1.45 times as much),
 * so that it is the last thing that a worker looks for.
 */
#define _GNU_SOURCE
#include "pool/lt_pool.h"

/* In buffers that are looked through at once. */
#define MAX_SPANS	4
/* A layer of which so many pieces were dropped, and fewer were taken, has none. */
#define MAX_DROPPED	4

/* No format has longer marks where a piece may begin. */
#define MARK_MAX	16

/* Input that lies together. */
struct span {
	int32_t buf;
	const u8 *ptr;
	size_t nbytes;
	u64 pos;		/* in the blob */
};

/* Where a piece was found: in spans first to last. */
struct place {
	u64 from, to;
	u32 first;
};

struct piece *lt_piece_here(lt_pool *p, int32_t id)
{
	const u64 pos = p->layers[id].infl_pos;

	for (u32 i = 0; i < p->n_pieces; i++) {
		struct piece *piece = &p->pieces[i];

		if (piece->state != NO_PIECE && piece->layer == id &&
		    piece->from == pos)
			return piece;
	}
	return NULL;
}

size_t lt_piece_limit(lt_pool *p, int32_t id, size_t nbytes)
{
	const u64 pos = p->layers[id].infl_pos;

	for (u32 i = 0; i < p->n_pieces; i++) {
		const struct piece *piece = &p->pieces[i];

		if (piece->state != NO_PIECE && piece->layer == id &&
		    piece->from > pos)
			nbytes = lt_min(nbytes, (size_t)(piece->from - pos));
	}
	return nbytes;
}

void lt_pieces_drop(lt_pool *p, int32_t id)
{
	for (u32 i = 0; i < p->n_pieces; i++)
		if (p->pieces[i].layer == id)
			p->pieces[i].state = NO_PIECE;
}

/* Where the next piece of a layer may begin, at the earliest: so far before its
 * inflater that it is decoded by the time that this comes there. */
static u64 earliest(const lt_pool *p, const struct layer *l)
{
	const u64 pos = (l->inflating ? l->infl_limit : l->infl_pos) +
			p->cfg.piece_in_nbytes;

	return pos > l->ahead_from ? pos : l->ahead_from;
}

static bool could_help(const lt_pool *p, const struct layer *l)
{
	const u64 least = p->cfg.piece_in_nbytes;
	u64 from;

	if (!l->used || l->done || l->status != LT_OK || !l->codec ||
	    l->infl_cur < 0 || l->window_wait || !lt_ahead_can(l->format))
		return false;
	if (l->n_dropped >= MAX_DROPPED && l->n_dropped > l->n_adopted)
		return false;
	/* Nothing new to look through since none was found. */
	if (l->submitted == l->ahead_tried)
		return false;
	from = earliest(p, l);
	/* The end of a piece must be at hand as well as its beginning. */
	return l->submitted > from && l->submitted - from > least &&
	       (l->ended || l->submitted - from >= 4 * least);
}

static int32_t find_layer(const lt_pool *p)
{
	int32_t best = -1;
	u64 best_left = 0;

	for (int32_t i = 0; i < MAX_LAYERS; i++) {
		const struct layer *l = &p->layers[i];
		const u64 left = l->submitted - l->infl_pos;

		if (could_help(p, l) && left > best_left) {
			best = i;
			best_left = left;
		}
	}
	return best;
}

/* Take a share of the in buffers that have the bytes from 'from' on. */
static u32 take_spans(lt_pool *p, struct layer *l, u64 from,
		      struct span spans[MAX_SPANS])
{
	u64 pos = l->infl_pos - l->infl_off;
	u32 n = 0;

	for (int32_t b = l->infl_cur; b >= 0 && n < MAX_SPANS;
	     b = p->in[b].next) {
		const u32 nbytes = p->in[b].nbytes;
		const u32 skip = from > pos ? (u32)lt_min(from - pos, nbytes) : 0;

		if (skip < nbytes) {
			spans[n++] = (struct span){
				b, p->in[b].ptr + skip, nbytes - skip, pos + skip,
			};
			p->in[b].users++;
		}
		pos += nbytes;
	}
	return n;
}

/* Look for a place to begin at and, far enough behind it, one to end at. */
static bool find_place(int format, const struct span *spans, u32 n, u64 least,
		       struct place *ret)
{
	bool begun = false;
	size_t at;

	for (u32 i = 0; i < n; i++) {
		const struct span *s = &spans[i];
		size_t from = 0;

		if (!begun) {
			if (!lt_ahead_find(format, s->ptr, s->nbytes, 0, &at))
				continue;
			begun = true;
			ret->from = s->pos + at;
			ret->first = i;
		}
		if (ret->from + least > s->pos)
			from = (size_t)(ret->from + least - s->pos);
		if (lt_ahead_find(format, s->ptr, s->nbytes, from, &at)) {
			ret->to = s->pos + at;
			return true;
		}
	}
	return false;
}

/* The input of a place in one piece: as it lies, or copied together.  NULL: no
 * memory. */
static const u8 *join(struct piece *piece, const struct span *spans,
		      const struct place *place)
{
	const struct span *s = &spans[place->first];
	const size_t nbytes = (size_t)(place->to - place->from);
	size_t done = (size_t)(s->pos + s->nbytes - place->from);

	if (nbytes <= done)
		return s->ptr + (place->from - s->pos);
	if (piece->joined_nbytes < nbytes) {
		free(piece->joined);
		piece->joined = malloc(nbytes);
		piece->joined_nbytes = piece->joined ? nbytes : 0;
		if (!piece->joined)
			return NULL;
	}
	memcpy(piece->joined, s->ptr + (place->from - s->pos), done);
	while (done < nbytes) {
		const size_t n = lt_min((++s)->nbytes, nbytes - done);

		memcpy(piece->joined + done, s->ptr, n);
		done += n;
	}
	return piece->joined;
}

bool lt_piece_run(lt_pool *p)
{
	struct span spans[MAX_SPANS];
	struct place place = {0};
	struct piece *piece = NULL;
	const int32_t id = p->n_pieces ? find_layer(p) : -1;
	const u8 *in;
	struct layer *l;
	bool found, useful = false;
	int format;
	bool check_crc;
	u64 submitted, sought, ahead_from, t;
	u32 n;

	for (u32 i = 0; i < p->n_pieces && !piece; i++)
		if (p->pieces[i].state == NO_PIECE)
			piece = &p->pieces[i];
	if (id < 0 || !piece)
		return false;
	l = &p->layers[id];
	if (!piece->ahead)
		piece->ahead = lt_ahead_new();
	if (!piece->ahead)
		return false;

	piece->state = SOUGHT;
	piece->layer = id;
	piece->from = earliest(p, l);
	n = take_spans(p, l, piece->from, spans);
	sought = n ? spans[n - 1].pos + spans[n - 1].nbytes : MARK_MAX;
	submitted = l->submitted;
	ahead_from = l->ahead_from;
	format = l->format;
	check_crc = l->flags & LT_LAYER_CHECK_CRC;
	l->n_ahead++;
	/* Until it is known where this one ends, no other is sought. */
	l->ahead_from = UINT64_MAX;
	pthread_mutex_unlock(&p->lock);

	t = lt_now_ns();
	found = find_place(format, spans, n, p->cfg.piece_in_nbytes, &place);
	if (found && place.to - place.from > p->cfg.in_nbytes)
		place.to = place.from + p->cfg.in_nbytes;

	lt_pool_lock(p);
	if (found) {
		piece->state = DECODED;
		piece->from = place.from;
		l->ahead_from = place.to;
		pthread_cond_broadcast(&p->work);
		pthread_mutex_unlock(&p->lock);

		in = join(piece, spans, &place);
		useful = in && lt_ahead_decode(piece->ahead, format, check_crc,
					       place.from, in,
					       (size_t)(place.to - place.from));
		lt_pool_lock(p);
	} else {
		/* Not before pieces that are there already, nor what was looked
		 * through before, but for the mark before a beginning whose end
		 * was not here yet: of a stream of one frame that took 7 % of
		 * all CPU time. */
		sought = (place.from ? place.from : sought) - MARK_MAX;
		l->ahead_from = sought > ahead_from ? sought : ahead_from;
		l->ahead_tried = submitted;
	}
	t = lt_now_ns() - t;

	p->ahead_ns += t;
	l->work_ns += t;
	l->n_ahead--;
	if (found && !useful)
		l->n_dropped++;
	for (u32 i = 0; i < n; i++)
		lt_in_consumed(p, l, spans[i].buf);
	piece->state = useful ? READY : NO_PIECE;
	lt_layer_settle(p, id);
	pthread_cond_broadcast(&p->work);
	return true;
}
