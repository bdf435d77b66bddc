/*
 * lt_api.h: everything Python can call, and its manual.
 *
 * cffi reads this file as it stands, so it holds declarations and comments
 * only: no preprocessor lines.  C reads it through lt_api_c.h; a declaration
 * that drifts from its definition is therefore a compile error.
 *
 * Words.  "In" is a blob as it was transferred, "out" is what it inflates to.
 * Sizes are bytes and 64 bits wide wherever a stream is meant.  A digest is
 * 32 raw bytes of SHA-256.  A function that returns enum lt_status returns
 * LT_OK or a negative error.  Nothing here calls back, logs, or sets errno;
 * only lt_pool has threads.  Every lt_*_free(NULL) is legal.
 */

enum lt_status {
	LT_OK = 0,

	/* The stream is not what it claims to be. */
	LT_ERR_HEADER = -1,		/* gzip member / zstd frame header is invalid */
	LT_ERR_DATA = -2,		/* the compressed data contradicts itself */
	LT_ERR_CHECKSUM = -3,		/* gzip CRC-32, FHCRC or zstd checksum is wrong */
	LT_ERR_LENGTH = -4,		/* gzip ISIZE or zstd content size is wrong */
	LT_ERR_TRUNCATED = -5,		/* the input ended inside a member or frame */
	LT_ERR_TRAILING = -6,		/* bytes follow the last member or frame */
	LT_ERR_HEADER_TOO_LONG = -7,	/* gzip FNAME or FCOMMENT above 64 KiB */
	LT_ERR_WINDOW = -8,		/* zstd window above the limit */
	LT_ERR_DICTIONARY = -9,		/* zstd frame needs a dictionary */
	LT_ERR_OUT_BUDGET = -10,	/* output would exceed its budget */
	LT_ERR_UNSUPPORTED = -11,	/* not an enum lt_format */

	/* The machine. */
	LT_ERR_MEMORY = -20,
	LT_ERR_WRITE = -21,		/* pwrite failed: see lt_result.os_errno */
	LT_ERR_THREAD = -22,

	/* The caller. */
	LT_ERR_CANCELLED = -30,
	LT_ERR_MISUSE = -31,
	LT_ERR_UNKNOWN_NAME = -32,	/* no kernel or inflater of that name */
	LT_ERR_NOT_BUILT = -33,		/* one of ours, but not in this build */
	LT_ERR_NO_CPU = -34,		/* built, but not for this CPU or OS */
};

enum lt_format {
	LT_FORMAT_NONE = 0,	/* stored as it is: out is in, both digests agree */
	LT_FORMAT_GZIP = 1,	/* RFC 1952, all members */
	LT_FORMAT_ZSTD = 2,	/* RFC 8878, all frames; skippable ones skipped */
	LT_FORMAT_DETECT = 3,	/* gzip or zstd: the stream's first byte tells */
};

/* What this build is.  The package compares the number at import and refuses a
 * binary of another: count it up when a declaration here changes or goes.
 * 'lt_build' names the libraries it was linked with, for a person. */
enum { LT_ABI = 7 };
const char *lt_build(void);

/*
 * What became of one stream.  All but status, os_errno, error_offset and window
 * are 0 unless status is LT_OK.
 */
struct lt_result {
	int status;
	int os_errno;			/* LT_ERR_WRITE */
	/* Where the failing member or frame begins in the input (for
	 * LT_ERR_TRAILING: where the surplus begins; for LT_ERR_TRUNCATED:
	 * where the input ended). */
	uint64_t error_offset;
	uint64_t window;		/* LT_ERR_WINDOW: the bytes that were asked for */
	uint64_t in_total;
	uint8_t in_digest[32];
	/* The rest is 0 if LT_LAYER_DIGEST_ONLY. */
	uint64_t out_total;
	uint8_t out_digest[32];
	/* enum lt_format, as which it was decoded: for LT_FORMAT_DETECT what
	 * was found, or itself where the stream is empty.  64 bits wide, so
	 * that results without gaps can be compared as bytes. */
	int64_t format;
	/* gzip members, or zstd frames, skippable ones included; of a stored
	 * stream 1, or 0 where it is empty.  Some readers of gzip stop after
	 * the first member. */
	uint64_t n_members;
};

/*
 * SHA-256 kernels.
 *
 * The table is ordered fastest first; its last entry, "portable", always runs
 * and is the oracle of the others.  lt_kernel_use(NULL) picks the first that
 * this build has and this CPU and OS allow.  A name is a demand: that kernel,
 * or LT_ERR_UNKNOWN_NAME, LT_ERR_NOT_BUILT or LT_ERR_NO_CPU, and no change.
 * Call it while no lt_tee or lt_pool is at work.
 */
int lt_kernel_use(const char *name);
const char *lt_kernel_current(void);
const char *lt_kernel_name(size_t index);	/* NULL past the end */
int lt_kernel_state(size_t index);		/* LT_OK, or why it cannot run */
int lt_kernel_lanes(size_t index);	/* streams hashed at once: 1, 2; 0: none */

/* One-shot and two-stream hashing, for tests and benches. */
void lt_sha256(const void *in, size_t in_nbytes, uint8_t *digest_ret);
void lt_sha256_two(const void *a, size_t a_nbytes, uint8_t *a_digest_ret,
		   const void *b, size_t b_nbytes, uint8_t *b_digest_ret);

/*
 * Hashing from the middle of a stream: a state is eight words, what the stream
 * has come to after a multiple of 64 bytes.  'nbytes' is such a multiple, too.
 * Of two, each goes its own way; they need not be of one stream.
 */
void lt_sha256_begin(uint32_t *state_ret);
void lt_sha256_go_on(const uint32_t *from, const void *in, size_t nbytes,
		     uint32_t *to_ret);
void lt_sha256_go_on_two(const uint32_t *a_from, const void *a, uint32_t *a_to_ret,
			 const uint32_t *b_from, const void *b, uint32_t *b_to_ret,
			 size_t nbytes_of_each);
/* The digest, from a state after 'nbytes_before' bytes and all that follow. */
void lt_sha256_end(const uint32_t *from, uint64_t nbytes_before,
		   const void *in, size_t in_nbytes, uint8_t *digest_ret);

/*
 * Inflaters: what decodes raw deflate (RFC 1951), the bodies of gzip members.
 *
 * The same rules as for kernels.  A stream is decoded to its end by the
 * inflater that was in use when it began.
 */
int lt_inflater_use(const char *name);
const char *lt_inflater_current(void);
const char *lt_inflater_name(size_t index);	/* NULL past the end */
int lt_inflater_state(size_t index);		/* LT_OK, or why it cannot run */

/*
 * The tee: one stream, one thread at a time.
 *
 * check_crc asks for the checksums of contents: the CRC-32 of every gzip
 * member, the XXH64 of every zstd frame that has one.  Lengths, and FHCRC, are
 * checked in any case, and what is not checked still has to be there.
 * out_budget bounds the output in bytes, window_max the zstd window (both
 * enforced while decoding).  Returns NULL when memory is short or the
 * format is unknown.
 */
typedef struct lt_tee lt_tee;
lt_tee *lt_tee_new(int format, int check_crc, uint64_t out_budget,
		   uint64_t window_max);
void lt_tee_free(lt_tee *t);

/*
 * Hash and decompress up to 'in_nbytes' bytes at 'in', writing at most
 * 'out_nbytes_avail' bytes to 'out'.  Every call consumes input, produces
 * output or fails; it never blocks.  Unconsumed input must be passed again.
 * When it returns LT_OK with all input consumed and *out_nbytes_ret below
 * out_nbytes_avail, no output is pending.  Any split of the same bytes gives
 * the same output, digests and status.  An error is final for this tee.
 */
int lt_tee_feed(lt_tee *t, const void *in, size_t in_nbytes,
		void *out, size_t out_nbytes_avail,
		size_t *in_nbytes_ret, size_t *out_nbytes_ret);

/*
 * The input has ended: what became of the stream.  Returns its status: LT_OK
 * only if the stream is complete and all output was taken, LT_ERR_TRUNCATED if
 * it is not complete, LT_ERR_MISUSE if output is still pending or for a second
 * call.  Empty input is a complete, empty stream in every format.
 */
int lt_tee_finish(lt_tee *t, struct lt_result *ret);

/* After an error: what lt_result.error_offset and lt_result.window will be. */
uint64_t lt_tee_error_offset(const lt_tee *t);
uint64_t lt_tee_error_window(const lt_tee *t);

/*
 * The pool: many streams, several threads.
 *
 * Worker threads share one queue under one mutex.  A job inflates one output
 * buffer, or hashes one or two pending buffers in two lanes (any two streams,
 * a layer's own in and out included) and then writes what it hashed while it
 * is still hot in the cache.  Output never waits for Python.
 *
 * The caller owns the network: it takes an input buffer (lt_pool_take), fills
 * it, and submits it to a layer in blob order.  The pool gives it back to the
 * free list when both its consumers are done.  All calls are made from one
 * thread; they never block, but for lt_pool_free.
 *
 * 'fd' of lt_pool_eventfd becomes readable when lt_pool_poll has something to
 * say: a layer is done, a buffer became free after lt_pool_take returned -1,
 * or streamed output is ready.
 */
typedef struct lt_pool lt_pool;

struct lt_pool_config {
	uint32_t n_workers;
	uint32_t n_in;			/* input buffers, allocated on first use */
	uint32_t in_nbytes;
	uint32_t n_out;			/* output buffers */
	uint32_t out_nbytes;
	/* Pieces of a lone layer that idle workers may decode before their turn,
	 * at once: each takes up to 4 MiB.  0: none; more than 6 are 6. */
	uint32_t n_pieces;
	uint32_t piece_in_nbytes;	/* of its blob that a piece has at least */
};

enum lt_layer_flags {
	LT_LAYER_WRITE_IN = 1,		/* write the blob itself to fd */
	LT_LAYER_WRITE_OUT = 2,		/* write what it inflates to, to fd */
	LT_LAYER_STREAM_OUT = 4,	/* hand output buffers to the caller */
	LT_LAYER_CHECK_CRC = 8,		/* check_crc of lt_tee_new */
	LT_LAYER_DIGEST_ONLY = 16,	/* hash the blob, inflate nothing */
};

struct lt_layer_config {
	int format;
	uint32_t flags;
	int fd;				/* -1 unless a WRITE flag is set; not closed */
	int spool_fd;			/* gets the blob as well, as far as it can be written; -1:
					 * nothing does; not closed */
	uint64_t in_from;		/* the file that gets the blob has so many bytes of it */
	uint64_t in_size;		/* as the manifest says; orders the work */
	uint64_t out_budget;
	uint64_t window_max;
};

enum lt_event_kind {
	LT_EVENT_DONE = 1,		/* layer finished or failed: see result */
	LT_EVENT_OUT = 2,		/* LT_LAYER_STREAM_OUT: a buffer to read */
	LT_EVENT_IN_FREE = 3,		/* an input buffer can be taken again */
};

struct lt_event {
	int kind;
	int32_t layer;
	int32_t buf;			/* LT_EVENT_OUT: give it back by lt_pool_out_done */
	uint32_t nbytes;		/* LT_EVENT_OUT */
};

/* Since the pool began.  idle_ns is the time workers waited while a layer was
 * open; pair_nbytes and single_nbytes were hashed in two lanes and in one. */
struct lt_pool_stats {
	uint64_t idle_ns, inflate_ns, hash_ns, write_ns;
	uint64_t pair_nbytes, single_nbytes;
	uint64_t ahead_ns;		/* spent on pieces before their turn */
	uint64_t ahead_nbytes;		/* of output that came from them */
	/* How often workers took the pool's lock, how often it was not free,
	 * and what they waited for it. */
	uint64_t n_locks, n_lock_waits, lock_wait_ns;
	uint32_t in_used;		/* input buffers not on the free list */
	uint32_t in_queued;		/* of these, submitted and not done */
	uint32_t in_touched;		/* input buffers ever allocated */
	uint32_t out_used, n_layers;
};

lt_pool *lt_pool_new(const struct lt_pool_config *config);
/* Stops and joins the workers.  Layers still open are cancelled. */
void lt_pool_free(lt_pool *p);
int lt_pool_eventfd(const lt_pool *p);

/* >= 0: the layer's number until lt_pool_layer_free.  Negative: lt_status. */
int32_t lt_pool_layer_open(lt_pool *p, const struct lt_layer_config *config);

/* An input buffer's number for 'layer' (or -1: for any), or -1: none is free
 * and LT_EVENT_IN_FREE will follow.  'keep' buffers are left for others: pass 0
 * for data that the layer needs next, more for data that arrives ahead of its
 * turn.  Layers that wait for leave to use a large zstd window may hold every
 * buffer; the one that has it then gets one of two kept in reserve. */
int32_t lt_pool_take(lt_pool *p, int32_t layer, uint32_t keep);
void *lt_pool_in_ptr(lt_pool *p, int32_t buf);
/* A buffer that was taken and not submitted goes back unused. */
void lt_pool_give_back(lt_pool *p, int32_t buf);

/* The next 'nbytes' bytes of the layer's blob are in 'buf', which belongs to
 * the pool again from here on, whatever is returned. */
int lt_pool_submit(lt_pool *p, int32_t layer, int32_t buf, uint32_t nbytes);
/* No more input will come; LT_EVENT_DONE follows when all work is done. */
int lt_pool_layer_end(lt_pool *p, int32_t layer);
/* Drop queued work; LT_EVENT_DONE follows when no worker touches it any more
 * (at most one job's time).  Until then fd must stay open. */
int lt_pool_layer_cancel(lt_pool *p, int32_t layer);

/* Write no more of the blob to spool_fd.  A write under way may still end after
 * this; the file may be unlinked, and is closed as fd is. */
int lt_pool_layer_end_spool(lt_pool *p, int32_t layer);

void *lt_pool_out_ptr(lt_pool *p, int32_t buf);
/* The buffer of an LT_EVENT_OUT was read and goes back.  LT_ERR_MISUSE: it is
 * not the caller's. */
int lt_pool_out_done(lt_pool *p, int32_t buf);

/* Fill up to 'n' events; the number filled.  Clears the eventfd when none are
 * left.  */
size_t lt_pool_poll(lt_pool *p, struct lt_event *events, size_t n);
/* What a layer has cost so far: bytes hashed of its blob, bytes that came out of
 * it, and the time that workers spent on it, but for writing. */
struct lt_layer_spent {
	uint64_t in_nbytes, out_nbytes;
	uint64_t work_ns;
};

/* Valid until lt_pool_layer_free. */
int lt_pool_layer_spent(lt_pool *p, int32_t layer, struct lt_layer_spent *ret);
/* Valid after LT_EVENT_DONE, until lt_pool_layer_free. */
int lt_pool_layer_result(lt_pool *p, int32_t layer, struct lt_result *ret);
/* Only after LT_EVENT_DONE. */
int lt_pool_layer_free(lt_pool *p, int32_t layer);
void lt_pool_stats(lt_pool *p, struct lt_pool_stats *ret);

/*
 * A layer of containers-storage: its tar, put together from tar-split and files.
 *
 * tar-split has one JSON object a line: bytes of the tar, or the name and size
 * of a file whose bytes come next.  Nearly all lines look alike, and those are
 * read at sight.  Any other line is left to the caller, and so is a file that
 * is not found under its name beneath 'tree', is not a regular file of that
 * size, or cannot be read: why, the caller finds out when it looks itself.
 * No symlink is followed.
 *
 * 'tree' is a descriptor of a directory and stays the caller's.  NULL when
 * memory is short.  One thread at a time.
 */
typedef struct lt_split lt_split;
lt_split *lt_split_new(int tree);
void lt_split_free(lt_split *s);

enum lt_split_status {
	LT_SPLIT_MORE = 0,	/* 'out' is full, or 'in' has no whole line left */
	LT_SPLIT_LINE = 1,	/* the next line is for the caller to take */
	LT_SPLIT_FILE = 2,	/* a file is: see lt_split_give_up_file */
};

/* What may still come: bytes, and lines.  A line that is beyond is left to the
 * caller. */
struct lt_split_bounds {
	uint64_t nbytes, n_entries;
};

/*
 * Take lines of 'in', and put what they stand for into 'out'.  A line is taken
 * as soon as the one before it is all in 'out'.  'out' NULL passes over so many
 * bytes, and opens no file for it.
 */
int lt_split_read(lt_split *s, const char *in, size_t in_nbytes,
		  void *out, size_t out_nbytes_avail,
		  struct lt_split_bounds *bounds,
		  size_t *in_nbytes_ret, size_t *out_nbytes_ret);

/* 'left' bytes of the file 'name' are next, from byte 'at' on. */
struct lt_split_file {
	const char *name;	/* until the next call */
	size_t name_nbytes;
	uint64_t at, left;
};

/* The caller goes on with the file, and lt_split_read after it. */
void lt_split_give_up_file(lt_split *s, struct lt_split_file *ret);
