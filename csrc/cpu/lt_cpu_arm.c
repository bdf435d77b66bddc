/*
 * lt_cpu_arm.c: what an ARMv8 CPU can do, as Linux says; any other has none of
 * it.  Linux names only what it also lets programs use.
 */
#include "cpu/lt_cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

bool lt_cpu_has_arm_sha2(void)
{
	return getauxval(AT_HWCAP) >> 6 & 1;	/* HWCAP_SHA2 */
}
#else
bool lt_cpu_has_arm_sha2(void)
{
	return false;
}
#endif
