/* Holding every program still, so that none runs in a copy that does not know yet that it is one. */
#ifndef FREEZE_H
#define FREEZE_H

/* Makes the control group that every program of the machine lives in; without it nothing is ever held still. */
void freeze_prepare(void);
/* Puts the calling process, a child that is about to become a program, into that group. */
void freeze_join(void);
/* Stops the group and waits until all of it stands, at most a fraction of a second. */
void freeze(void);
/* Lets the group go on. Cheap when it runs already. */
void thaw(void);

#endif
