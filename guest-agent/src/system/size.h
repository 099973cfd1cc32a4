/* How much of its virtual hardware the machine uses: the rest of the CPUs and of the memory is offline. */
#ifndef SIZE_H
#define SIZE_H

#include <stdint.h>

/* At boot: leaves only as much memory in use as the command line says. */
void keep_memory(void);
/* 0 or an errno: EINVAL when the machine does not have so many. */
int set_cpus(uint64_t count);
/* Rounds up to whole blocks. 0 or an errno: EINTR when programs use too much of it to let it go in time. */
int set_memory(uint64_t megabytes);

#endif
