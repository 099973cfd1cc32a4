/* Who this machine is: set anew by every RESUME. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdint.h>

/* Opens what a RESUME writes to, so that the RESUME itself is a handful of system calls. */
void identity_prepare(void);
/*
 * Applies a RESUME and answers with RESUMED. Any step that fails is named in the answer: the host must
 * not use the machine then.
 */
void identity_resume(const uint8_t *payload, uint32_t length);
/* After a THAW: the machine was stopped and is the same as before. Sets the clock, then thaws programs. */
void identity_continue(const uint8_t *payload, uint32_t length);

#endif
