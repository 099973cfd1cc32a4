#include "processes/records.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "channel/out.h"
#include "clock.h"
#include "processes/process_table.h"
#include "proto.h"

enum { RECORD_ROOM = COMMAND_MAX + 1024 };

struct listing {
	const struct process *only; /* the one that was asked for; NULL: all */
	size_t next;
};

static uint64_t microseconds(struct timeval time)
{
	return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

static uint32_t flags_of(const struct process *p)
{
	return (p->state != P_ENDED ? STATE_RUNNING : 0) | (p->timed_out ? STATE_TIMED_OUT : 0) |
	       (p->cancelled ? STATE_CANCELLED : 0) | (p->pty ? STATE_PTY : 0) | (p->background ? STATE_BACKGROUND : 0) |
	       (p->in.fd >= 0 ? STATE_INPUT : 0) | (process_inherited(p) ? STATE_INHERITED : 0) |
	       (p->command && strlen(p->command) >= COMMAND_MAX ? STATE_CMD_CUT : 0);
}

static void put_outputs(struct tlv_writer *w, const struct process *p)
{
	tlv_put_u64(w, RECORD_OUT_BASE, p->logs[0].base);
	tlv_put_u64(w, RECORD_OUT_END, p->logs[0].end);
	tlv_put_u64(w, RECORD_ERR_BASE, p->logs[1].base);
	tlv_put_u64(w, RECORD_ERR_END, p->logs[1].end);
}

static void put_record(struct tlv_writer *w, const struct process *p)
{
	uint64_t duration = p->state == P_RUNNING ? now_ns() - p->began_ns : p->duration_ns;

	tlv_put_text(w, RECORD_ID, p->id);
	tlv_put_u32(w, RECORD_PID, (uint32_t)p->pid);
	tlv_put_u64(w, RECORD_STARTED_NS, p->started_ns);
	tlv_put_u32(w, RECORD_FLAGS, flags_of(p));
	tlv_put_u64(w, RECORD_DURATION_US, duration / 1000);
	tlv_put_u64(w, RECORD_TIMEOUT_MS, p->timeout_ms);
	tlv_put_text(w, RECORD_CMD, p->command ? p->command : "");
	tlv_put_text(w, RECORD_USER, p->user);
	put_outputs(w, p);
	if (p->pty) {
		tlv_put_u32(w, RECORD_ROWS, p->rows);
		tlv_put_u32(w, RECORD_COLS, p->cols);
	}
	if (p->state != P_ENDED)
		return;
	if (WIFSIGNALED(p->status))
		tlv_put_u32(w, RECORD_SIGNAL, (uint32_t)WTERMSIG(p->status));
	tlv_put_u32(w, RECORD_EXIT_CODE,
	            WIFSIGNALED(p->status) ? 128u + (uint32_t)WTERMSIG(p->status) : (uint32_t)WEXITSTATUS(p->status));
	tlv_put_u64(w, RECORD_UTIME_US, microseconds(p->usage.ru_utime));
	tlv_put_u64(w, RECORD_STIME_US, microseconds(p->usage.ru_stime));
	tlv_put_u64(w, RECORD_MAXRSS_KB, (uint64_t)p->usage.ru_maxrss);
	tlv_put_u64(w, RECORD_READ_BLOCKS, (uint64_t)p->usage.ru_inblock);
	tlv_put_u64(w, RECORD_WRITTEN_BLOCKS, (uint64_t)p->usage.ru_oublock);
}

void put_record_item(struct tlv_writer *w, const struct process *p)
{
	struct tlv_writer inner = { w->at + 5, w->end, w->overflow };

	if (w->overflow || w->end - w->at < 5) {
		w->overflow = true;
		return;
	}
	put_record(&inner, p);
	w->overflow = inner.overflow;
	if (inner.overflow)
		return;
	w->at[0] = RESULT_RECORD;
	put_u32(w->at + 1, (uint32_t)(inner.at - w->at) - 5);
	w->at = inner.at;
}

void put_exit(struct tlv_writer *w, const struct process *p)
{
	bool killed = WIFSIGNALED(p->status);

	tlv_put_u32(w, RESULT_EXIT_CODE, killed ? 128u + (uint32_t)WTERMSIG(p->status) : (uint32_t)WEXITSTATUS(p->status));
	if (killed)
		tlv_put_u32(w, RESULT_SIGNAL, (uint32_t)WTERMSIG(p->status));
	if (p->timed_out)
		tlv_put(w, RESULT_TIMED_OUT, NULL, 0);
	tlv_put_u64(w, RESULT_DURATION_US, p->duration_ns / 1000);
	tlv_put_u64(w, RESULT_UTIME_US, microseconds(p->usage.ru_utime));
	tlv_put_u64(w, RESULT_STIME_US, microseconds(p->usage.ru_stime));
	tlv_put_u64(w, RESULT_MAXRSS_KB, (uint64_t)p->usage.ru_maxrss);
}

/* One record in a frame of its own; false when there is no room. */
static bool send_record(struct stream *s, const struct process *p)
{
	size_t room;
	uint8_t *payload = stream_room(s, RECORD_ROOM, &room);
	struct tlv_writer w = { payload, payload + room, false };

	if (!payload)
		return false;
	put_record_item(&w, p);
	if (w.overflow)
		return false;
	stream_send(s, F_DATA, (size_t)(w.at - payload));
	return true;
}

static bool records_pump(struct stream *s)
{
	struct listing *listing = s->state;
	bool moved = false;

	while (listing->next < (listing->only ? 1 : processes_used)) {
		const struct process *p = listing->only ? listing->only : &processes[listing->next];

		if (p->state != P_FREE && p->id[0]) {
			if (!send_record(s, p))
				return moved;
			moved = true;
		}
		listing->next++;
	}
	stream_finish(s, 0, NULL);
	return moved;
}

static void records_open(struct stream *s, const struct request *r)
{
	struct listing *listing = s->state;

	processes_retire();
	listing->only = r->id ? process_find(r->id) : NULL;
	if (r->id && !listing->only)
		stream_finish(s, ESRCH, "id");
}

static void records_result(struct stream *s, struct tlv_writer *w)
{
	(void)s;
	tlv_put_u64(w, RESULT_MAX_RECORDS, RECORDS_MAX);
	tlv_put_u64(w, RESULT_MAX_BYTES, RECORDS_BYTES);
	tlv_put_u64(w, RESULT_MAX_AGE_S, RECORDS_AGE_S);
	tlv_put_u64(w, RESULT_FORGOTTEN, processes_forgotten);
}

const struct stream_ops processes_ops = {
	.name = OP_PROCESSES,
	.state_size = sizeof(struct listing),
	.open = records_open,
	.pump = records_pump,
	.result = records_result,
};
