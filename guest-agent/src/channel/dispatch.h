/* What each frame from the host does. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "channel/parser.h"

void dispatch(const struct parser *frame);
void dispatch_hello(void);

#endif
