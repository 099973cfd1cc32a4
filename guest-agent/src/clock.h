/* Monotonic time: it stops while the machine is stopped. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

#define NO_DEADLINE UINT64_MAX

uint64_t now_ns(void);

#endif
