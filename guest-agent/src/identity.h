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
/* After a THAW: the machine stood still and is no other than before. Sets the clock, then lets programs go on. */
void identity_go_on(const uint8_t *payload, uint32_t length);

#endif
