#include "stream.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "connect.h"
#include "files.h"
#include "out.h"
#include "view.h"

struct stream streams[STREAMS];

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct stream *stream_find(uint32_t id)
{
	for (size_t i = 0; i < STREAMS; i++)
		if (streams[i].kind != S_FREE && streams[i].id == id)
			return &streams[i];
	return NULL;
}

struct stream *stream_new(uint32_t id)
{
	for (size_t i = 0; i < STREAMS; i++) {
		struct stream *s = &streams[i];

		if (s->kind != S_FREE)
			continue;
		memset(s, 0, sizeof *s);
		s->id = id;
		s->credit = WINDOW;
		s->file = s->socket[0].fd = s->socket[1].fd = -1;
		return s;
	}
	return NULL;
}

void stream_forget(struct stream *s)
{
	view_close(s);
	if (s->kind == S_SOCKET)
		connect_close(s);
	if (s->file >= 0)
		close(s->file);
	if (s->temporary)
		unlink(s->temporary);
	free(s->temporary);
	free(s->target);
	free(s->input);
	free(s->request);
	changes_end(s->walk);
	s->walk = NULL;
	s->temporary = s->target = NULL;
	s->input = s->request = NULL;
	s->kind = S_FREE;
}

void stream_finish(struct stream *s, int error, const char *what)
{
	s->finished = true;
	s->error = error;
	s->what = what;
}

void send_error(uint32_t id, int error, const char *what)
{
	struct tlv_writer w = out_tlv(RESULT_ROOM);
	char text[256];

	strncpy(text, what, 128);
	text[128] = 0;
	strcat(text, ": ");
	strncat(text, strerror(error), 100);
	tlv_put_u32(&w, RESULT_ERRNO, (uint32_t)error);
	tlv_put_text(&w, RESULT_MESSAGE, text);
	out_commit_tlv(F_RESULT, id, &w);
}

bool stream_result(struct stream *s)
{
	struct tlv_writer w = out_tlv(RESULT_ROOM);

	if (w.overflow)
		return false;
	if (s->error) {
		send_error(s->id, s->error, s->what);
	} else {
		if (s->process)
			view_result(&w, s);
		else if (s->kind == S_RECORDS)
			records_result(&w);
		else
			tlv_put_u64(&w, RESULT_BYTES, s->bytes);
		out_commit_tlv(F_RESULT, s->id, &w);
	}
	stream_forget(s);
	return true;
}

void stream_consumed(struct stream *s, uint32_t bytes)
{
	s->owed += bytes;
	if (s->owed >= CREDIT_BATCH) {
		out_credit(s->id, s->owed);
		s->owed = 0;
	}
}
