/* Freezing every program, so that none runs in a copy before that copy has its own identity. */
#ifndef FREEZE_H
#define FREEZE_H

#include <stdbool.h>

/* Makes the control group that every program of the machine lives in; without it nothing is ever frozen. */
void freeze_prepare(void);
/* Puts the calling process, a child that is about to become a program, into that group. */
void freeze_join(void);
/* Puts the calling process into a group beside it, which is never frozen; false with errno where there is none. */
bool freeze_avoid(void);
/* Freezes the group and waits until all of it is frozen, at most a fraction of a second. */
void freeze(void);
/* Thaws the group. Cheap when it is not frozen. */
void thaw(void);

#endif
