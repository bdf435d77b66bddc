/*
 * lt_ahead.c: what the pieces of all formats share.
 */
#include "codec/ahead/lt_ahead.h"
#include "codec/lt_format.h"

lt_ahead *lt_ahead_new(void)
{
	return calloc(1, sizeof(lt_ahead));
}

static void drop_work(lt_ahead *a)
{
	if (a->work)
		a->ops->free_work(a->work);
	a->work = NULL;
}

void lt_ahead_free(lt_ahead *a)
{
	if (a)
		drop_work(a);
	free(a);
}

static const struct lt_ahead_ops *ahead_ops(int format)
{
	const struct lt_format_ops *ops = lt_format_ops(format);

	return ops ? ops->ahead : NULL;
}

bool lt_ahead_can(int format)
{
	const struct lt_ahead_ops *ops = ahead_ops(format);

	return ops && ops->can();
}

bool lt_ahead_find(int format, const u8 *in, size_t nbytes, size_t from,
		   size_t *at_ret)
{
	return from < nbytes &&
	       ahead_ops(format)->find(in, nbytes, from, at_ret);
}

bool lt_ahead_decode(lt_ahead *a, int format, bool check_crc, u64 in_pos,
		     const u8 *in, size_t nbytes)
{
	const struct lt_ahead_ops *ops = ahead_ops(format);

	if (a->ops != ops) {
		drop_work(a);
		a->ops = ops;
	}
	if (!a->work)
		a->work = ops->new_work();
	a->check_crc = check_crc;
	a->in_pos = in_pos;
	a->in_nbytes = 0;
	a->out_nbytes = 0;
	a->n_members = 0;
	a->n_taken = 0;
	if (a->work)
		ops->decode(a, in, nbytes);
	return a->in_nbytes > 0;
}

size_t lt_ahead_in_nbytes(const lt_ahead *a)
{
	return a->in_nbytes;
}

size_t lt_ahead_out_nbytes(const lt_ahead *a)
{
	return a->out_nbytes;
}
