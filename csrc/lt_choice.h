/*
 * lt_choice.h: how one of several implementations of the same thing is chosen.
 *
 * A table of them is ordered fastest first and lists also those that this
 * build does not have.  A name is a demand: that one, or the reason why not
 * (LT_ERR_UNKNOWN_NAME, LT_ERR_NOT_BUILT, LT_ERR_NO_CPU).  So a test or a
 * user who asks for one never runs another.  NULL is the first that can run.
 */
#ifndef LT_CHOICE_H
#define LT_CHOICE_H

#include "lt_api_c.h"
#include "lt_common.h"

/*
 * 'name_of' gives the name of an entry, NULL past the end; 'state_of' LT_OK
 * or the reason why it cannot run.  '*index_ret' is the entry, 0 if there is
 * none.
 */
static inline int lt_choose(const char *name, const char *(*name_of)(size_t),
			    int (*state_of)(size_t), size_t *index_ret)
{
	*index_ret = 0;
	for (size_t i = 0; name_of(i); i++) {
		int state;

		if (name && strcmp(name, name_of(i)) != 0)
			continue;
		state = state_of(i);
		if (state == LT_OK)
			*index_ret = i;
		if (name || state == LT_OK)
			return state;
	}
	return LT_ERR_UNKNOWN_NAME;
}

#endif
