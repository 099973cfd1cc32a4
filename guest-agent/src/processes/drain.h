/* Outputs that nobody reads any more. */
#ifndef DRAIN_H
#define DRAIN_H

#include "processes/pipe_end.h"

/* Takes over the descriptor: what background processes still write there is dropped. */
void pipe_drain(struct pipe_end *end);

#endif
