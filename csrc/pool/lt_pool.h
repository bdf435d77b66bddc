/*
 * lt_pool.h: worker threads that run many tees, from the inside.
 *
 * What a caller may do is in lt_api.h ("The pool"); this is for the three files
 * behind it: lt_pool.c is the interface, lt_pool_work.c what a worker does,
 * lt_pool_state.c what both do to buffers, events and finished layers.  No
 * other file of the core knows of threads.
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
 * SHA-256 streams interleaved on one core run at 1.5 (Zen 5) to 1.9 (Zen 3)
 * times the rate of one, and any two waiting streams will do, a layer's own two
 * included.
 *
 * One mutex guards all state.  It is taken about three times per 256 KiB of
 * output (some 20,000 times per GB), which does not show in a profile; no lock
 * is held while bytes are touched.  Who may touch what without the lock:
 * 'inflating' makes codec, infl_* and out_cur the worker's; 'busy' of a stream
 * makes its hash state and its cursor the worker's.
 *
 * The life of an in buffer:
 *
 *	FREE	on the free list (the last N_RESERVED on one of their own)
 *	TAKEN	the caller's, who fills it: lt_pool_take; lt_pool_give_back
 *		makes it FREE again
 *	QUEUED	submitted: linked to the layer's list, 'in.cur' or 'infl_cur'
 *		to 'in_tail'.  'users' counts who has not gone past it: the hash
 *		and, if there is a codec, the inflater, each with a cursor of
 *		its own on the same list.  The last one makes it FREE.
 *
 * The life of an out buffer:
 *
 *	FREE	on the free list
 *	TAKEN	the layer's 'out_cur', being filled by one inflate job or more
 *	QUEUED	full, or the last one: linked to the layer's list, 'out.cur' to
 *		'out_tail', until it was hashed and written.  Then it is FREE
 *	LENT	or, for LT_LAYER_STREAM_OUT, the caller's to read, from its
 *		LT_EVENT_OUT until lt_pool_out_done.  A stored layer's buffers
 *		are lent at once: they are hashed on the way in.
 *
 * The end of a layer frees all of its buffers but those that are LENT.  As
 * writing belongs to hashing, a buffer that is FREE has been written, too.
 */
#ifndef LT_POOL_H
#define LT_POOL_H

#include <pthread.h>
#include <time.h>

#include "codec/ahead/lt_ahead.h"
#include "codec/lt_codec.h"
#include "hash/lt_sha256.h"
#include "lt_api_c.h"

#define MAX_WORKERS	64
#define MAX_LAYERS	64
/* Decoders kept for reuse: a zstd context costs its window (8 MiB) in page
 * faults each time it is made anew. */
#define MAX_SPARE_CODECS	4
/* Most pieces that are decoded before their turn or wait for it: each takes up
 * to 4 MiB.  One layer's bytes come in order in the end, from one worker, who
 * can take about as many as this. */
#define MAX_PIECES	6
/* In buffers that only the layer with the large window may take, when the
 * layers that wait for it hold all others: without them nobody could go on. */
#define N_RESERVED	2

enum buf_state { FREE, TAKEN, QUEUED, LENT };

struct buf {
	u8 *ptr;		/* in buffers: NULL until first taken */
	u32 nbytes;
	u8 users;		/* in: consumers still to come */
	u8 state;		/* enum buf_state */
	int32_t next;		/* in a layer's list or the free list; -1 */
};

/* One direction of a layer: what to hash, how far, and where to write it. */
/* 'hash' is what there is to do at all: the out stream of a layer that is
 * stored, or of which only the blob's digest is wanted, has none. */
struct stream {
	struct lt_sha256_state sha;
	int32_t cur;		/* buffer being hashed, -1: none waits */
	u32 cur_off;		/* bytes of it hashed already */
	u32 n_waiting;		/* buffers from 'cur' on */
	u64 pos;		/* bytes hashed (and written) so far */
	u64 from;		/* bytes that the file has already */
	int fd;			/* -1: it is not written */
	bool busy;
	bool hash;
};

/*
 * A piece of a layer's blob that is decoded before its turn (lt_ahead.h says
 * what that is).  While it is SOUGHT or DECODED a worker has it, without the
 * lock, and holds a share of each in buffer that it reads ('users').  READY,
 * it waits for the layer's inflater, which stops where a piece begins: there it
 * adopts it (TAKEN_IN), or drops it.
 */
enum piece_state { NO_PIECE, SOUGHT, DECODED, READY, TAKEN_IN };

struct piece {
	enum piece_state state;
	int32_t layer;
	u64 from;		/* offset in the blob; while SOUGHT not before it */
	lt_ahead *ahead;
	u8 *joined;		/* its input, where that lies in two buffers */
	size_t joined_nbytes;
};

struct layer {
	bool used;
	bool ended;		/* no more input will come */
	bool inflating;
	bool inflated;		/* codec finished, last out buffer queued */
	bool more_out;		/* codec stopped because its buffer was full */
	bool window_wait;	/* idle until 'window_owner' has ended */
	bool done;
	int status;
	int os_errno;
	u32 flags;
	u64 in_size;

	lt_codec *codec;	/* NULL: nothing to inflate */
	int32_t infl_cur;	/* in buffer being inflated, -1: none waits */
	u32 infl_off;		/* bytes of it inflated already */
	u64 infl_pos;		/* same, of the blob */
	int32_t out_cur;	/* being filled, -1: none is */
	u32 out_fill;

	/* Pieces before their turn; 'pool/lt_pool_ahead.c'. */
	int format;		/* as far as the codec knows */
	u64 submitted;		/* bytes of the blob, so far */
	u64 infl_limit;		/* the inflate job under way goes no further */
	u64 ahead_from;		/* the next piece is sought from here on */
	u64 ahead_tried;		/* 'submitted' when none was found last */
	u32 n_ahead;		/* workers that seek or decode one */
	u32 n_adopted, n_dropped;

	int32_t in_tail;	/* last of the lists, -1: they are empty */
	int32_t out_tail;
	struct stream in;
	struct stream out;
	u64 out_total;
	u64 work_ns;		/* of workers, but for writing; of a pair, each gets half */
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
	u8 *in_memory, *out_memory;
	int32_t in_free, in_reserve, out_free;
	u32 n_in_reserve, n_in_free, n_out_free, n_in_touched, n_in_queued;
	bool want_in;		/* one was refused since LT_EVENT_IN_FREE */

	struct layer layers[MAX_LAYERS];
	u32 n_layers;
	u32 n_inflating;
	int32_t window_owner;	/* the one layer allowed a large zstd window */
	lt_codec *spare[MAX_SPARE_CODECS];
	u32 n_spare;
	struct piece pieces[MAX_PIECES];
	u32 n_pieces;		/* that may be in use: 0 to MAX_PIECES */

	struct lt_event *events;	/* ring */
	u32 n_events_max, ev_head, ev_count;

	u64 idle_ns, inflate_ns, hash_ns, write_ns, ahead_ns;
	u64 ahead_nbytes;	/* that came from pieces */
	u64 lock_wait_ns;	/* of workers */
	u64 n_locks, n_lock_waits;	/* same */
	u64 pair_nbytes, single_nbytes;
};

static inline u64 lt_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

/* All of these are called with the lock held. */

static inline void lt_layer_fail(struct layer *l, int status, int os_errno)
{
	if (l->status == LT_OK) {
		l->status = status;
		l->os_errno = os_errno;
	}
}

/* If all is done and no worker is on it: the result, the buffers, LT_EVENT_DONE. */
void lt_layer_settle(lt_pool *p, int32_t id);
void lt_event_post(lt_pool *p, int kind, int32_t layer, int32_t buf, u32 nbytes);
void lt_call_takers(lt_pool *p);
void lt_in_release(lt_pool *p, int32_t b);
void lt_in_consumed(lt_pool *p, struct layer *l, int32_t b);
void lt_out_release(lt_pool *p, int32_t b);

/* Take the lock, as a worker: what it waits is counted. */
void lt_pool_lock(lt_pool *p);

/* The piece that begins where the layer's inflater stands, or NULL. */
struct piece *lt_piece_here(lt_pool *p, int32_t id);
/* How many of 'nbytes' bytes the inflater may read before a piece begins. */
size_t lt_piece_limit(lt_pool *p, int32_t id, size_t nbytes);
void lt_pieces_drop(lt_pool *p, int32_t id);
/* Seek and decode a piece, if there is a layer that one would help.  Called and
 * returns with the lock held. */
bool lt_piece_run(lt_pool *p);

/* A worker thread's body: jobs, until the pool stops.  Takes the lock itself. */
void *lt_pool_worker(void *arg);

#endif
