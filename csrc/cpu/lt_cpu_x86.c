/*
 * lt_cpu_x86.c: what an x86-64 CPU can do; any other has none of it.
 *
 * SHA-NI works on XMM registers in legacy encoding.  Every x86-64 OS saves
 * those (the ABI passes doubles in them), so no XCR0 check is needed for it; a
 * kernel that uses YMM or ZMM would need one.
 *
 * Not by __builtin_cpu_supports(): that is a function of the compiler's own
 * library, and some of those are one object, with a plain memcpy() in it that
 * then takes the place of the C library's.
 */
#include "cpu/lt_cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>

bool lt_cpu_has_shani(void)
{
	u32 eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
		return false;
	if (!(ecx & bit_SSSE3) || !(ecx & bit_SSE4_1))
		return false;
	if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		return false;
	return (ebx >> 29) & 1;		/* CPUID.7.0:EBX.SHA */
}

static bool ask_for_avx(void)
{
	u32 eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
		return false;
	if (!(ecx & bit_OSXSAVE) || !(ecx & bit_AVX))
		return false;
	/* xgetbv of XCR0, which assemblers know longer than compilers do. */
	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return (eax & 6) == 6;		/* the XMM and YMM halves are saved */
}

/* Asked for with every piece of output.  In a virtual machine the hypervisor
 * answers cpuid, which takes as long as the CRC of 100 KB, so what it said is
 * remembered.  Threads that ask at once all write the same. */
bool lt_cpu_has_avx(void)
{
	enum { NOT_ASKED, NO, YES };
	static atomic_int answer;
	int known = atomic_load_explicit(&answer, memory_order_relaxed);

	if (known == NOT_ASKED) {
		known = ask_for_avx() ? YES : NO;
		atomic_store_explicit(&answer, known, memory_order_relaxed);
	}
	return known == YES;
}

bool lt_cpu_has_bmi2(void)
{
	u32 eax, ebx, ecx, edx;

	if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		return false;
	return (ebx & bit_BMI) && (ebx & bit_BMI2);
}
#else
bool lt_cpu_has_shani(void)
{
	return false;
}

bool lt_cpu_has_avx(void)
{
	return false;
}

bool lt_cpu_has_bmi2(void)
{
	return false;
}
#endif
