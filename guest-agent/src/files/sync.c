#include "files/sync.h"

#include <unistd.h>

#include "proto.h"
#include "streams/job.h"

static int sync_all(const char *path)
{
	(void)path;
	sync();
	return 0;
}

static void sync_open(struct stream *s, const struct request *r)
{
	(void)r;
	job_start(s, sync_all, NULL, "sync");
}

const struct stream_ops sync_ops = {
	.name = OP_SYNC,
	.open = sync_open,
	.signal = job_signal,
	.reaped = job_reaped,
};
