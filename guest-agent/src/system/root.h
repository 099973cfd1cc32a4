/* File systems: the early ones, the root, and what a system expects below it. */
#ifndef ROOT_H
#define ROOT_H

#include <stdint.h>

void mount_early(void);
/* Mounts the root and moves into it. */
void switch_root(void);
void mount_late(void);
/* Grows the root to its disk, which has just become as large as this. 0 or an errno. */
int grow_disk(uint64_t megabytes);

#endif
