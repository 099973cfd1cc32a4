/* Work that may take long, done by a child of ours that exits with an errno. */
#ifndef JOB_H
#define JOB_H

#include "streams/stream.h"

/* The stream finishes with what `work` returns; `what` names the failure. */
void job_start(struct stream *stream, int (*work)(const char *), const char *path, const char *what);
/* For the operations of such a stream. */
void job_signal(struct stream *stream, int signal);
void job_reaped(struct stream *stream, int status);

#endif
