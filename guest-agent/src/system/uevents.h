/* What the kernel says of devices that appear. */
#ifndef UEVENTS_H
#define UEVENTS_H

#include <stdbool.h>

/* Before what causes the events is set off, so that none is missed. */
void uevents_open(void);
/* Returns when something changed; false after `timeout_ms` without anything. */
bool uevents_wait(int timeout_ms);
void uevents_close(void);

#endif
