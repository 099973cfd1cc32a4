/* File systems: the early ones, the root, and what a system expects below it. */
#ifndef ROOT_H
#define ROOT_H

void mount_early(void);
/* Mounts the root and moves into it. */
void switch_root(void);
void mount_late(void);

#endif
