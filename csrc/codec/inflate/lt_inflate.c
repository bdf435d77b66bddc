/*
 * lt_inflate.c: the table of inflaters, and the one in use.
 */
#include "codec/inflate/lt_inflate.h"
#include "lt_api_c.h"
#include "lt_choice.h"

/* Fastest measured first; the last is for tests: our own without what only some
 * CPUs have. */
static const struct lt_inflater *const inflaters[] = {
	&lt_inflater_own,
	&lt_inflater_isal,
	&lt_inflater_zlib,
	&lt_inflater_own_portable,
};

/* Set at import, before any thread.  NULL: the first that is built. */
static const struct lt_inflater *chosen;

const char *lt_inflater_name(size_t index)
{
	return index < LT_ARRAY_SIZE(inflaters) ? inflaters[index]->name : NULL;
}

int lt_inflater_state(size_t index)
{
	if (index >= LT_ARRAY_SIZE(inflaters))
		return LT_ERR_UNKNOWN_NAME;
	return inflaters[index]->new ? LT_OK : LT_ERR_NOT_BUILT;
}

int lt_inflater_use(const char *name)
{
	size_t index;
	int ret = lt_choose(name, lt_inflater_name, lt_inflater_state, &index);

	if (ret == LT_OK)
		chosen = inflaters[index];
	return ret;
}

/* Does not store what it finds: it may run in any thread. */
static const struct lt_inflater *in_use(void)
{
	size_t index;
	int ret;

	if (chosen)
		return chosen;
	ret = lt_choose(NULL, lt_inflater_name, lt_inflater_state, &index);
	return ret == LT_OK ? inflaters[index] : NULL;
}

const char *lt_inflater_current(void)
{
	const struct lt_inflater *by = in_use();

	return by ? by->name : NULL;
}

struct lt_inflate *lt_inflate_renew(struct lt_inflate *f)
{
	const struct lt_inflater *by = in_use();

	if (f && f->by == by)
		return f;
	lt_inflate_free(f);
	f = by ? by->new() : NULL;
	if (f)
		f->by = by;
	return f;
}

void lt_inflate_free(struct lt_inflate *f)
{
	if (f)
		f->by->free(f);
}

void lt_inflate_reset(struct lt_inflate *f)
{
	f->by->reset(f);
}

int lt_inflate_step(struct lt_inflate *f, struct lt_cursor *io,
		    u8 surplus_ret[LT_INFLATE_SURPLUS_MAX],
		    size_t *surplus_nbytes_ret)
{
	return f->by->step(f, io, surplus_ret, surplus_nbytes_ret);
}

bool lt_inflate_can_pass(void)
{
	const struct lt_inflater *by = in_use();

	return by && by->pass;
}

bool lt_inflate_stands(const struct lt_inflate *f)
{
	return f->by->stands && f->by->stands(f);
}

void lt_inflate_window(const struct lt_inflate *f, u8 *window_ret)
{
	f->by->window(f, window_ret);
}

void lt_inflate_pass(struct lt_inflate *f, const u8 *window)
{
	f->by->pass(f, window);
}

size_t lt_inflate_freeze(const struct lt_inflate *f,
			 u8 frozen_ret[LT_INFLATE_FROZEN_MAX])
{
	return f->by->freeze ? f->by->freeze(f, frozen_ret) : 0;
}

int lt_inflate_thaw(struct lt_inflate *f, const u8 *frozen, size_t nbytes)
{
	return f->by->thaw ? f->by->thaw(f, frozen, nbytes) : LT_ERR_MISUSE;
}
