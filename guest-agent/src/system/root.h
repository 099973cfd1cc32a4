/* File systems: the early ones, the root, and what a system expects below it. */
#ifndef ROOT_H
#define ROOT_H

#include <stdint.h>

void mount_early(void);
/* Mounts the root and moves into it. */
void switch_root(void);
void mount_late(void);
/* Waits until a disk that the host has grown has this many bytes. 0 or an errno. */
int wait_for_size(int disk, uint64_t bytes);
/* Grows the mounted ext4 that the directory is in, which has blocks of 4 KiB. 0 or an errno. */
int grow_file_system(int directory, uint64_t bytes);
/* Grows the root to its disk, which has just become as large as this. 0 or an errno. */
int grow_disk(uint64_t megabytes);

#endif
