/*
 * lt_cpu.h: what this CPU, and the OS on it, let us execute.
 *
 * One file for each kind of CPU; each function is there on all of them, and
 * false where it makes no sense.  Answers do not change while a process runs.
 */
#ifndef LT_CPU_H
#define LT_CPU_H

#include "lt_common.h"

/* SHA-NI with the SSSE3 and SSE4.1 shuffles the kernel needs. */
bool lt_cpu_has_shani(void);
/* AVX, and an OS that saves its registers. */
bool lt_cpu_has_avx(void);
/* BMI1 and BMI2. */
bool lt_cpu_has_bmi2(void);

/* The four instructions for SHA-256 of ARMv8. */
bool lt_cpu_has_arm_sha2(void);

#endif
