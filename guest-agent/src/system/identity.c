#include "system/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "channel/out.h"
#include "channel/tlv.h"
#include "loop.h"
#include "system/connections.h"
#include "system/freeze.h"
#include "system/names.h"
#include "system/root.h"
#include "system/size.h"
#include "processes/env.h"
#include "processes/process_table.h"
#include "proto.h"
#include "streams/listen.h"
#include "streams/tunnel_table.h"

enum { ENTROPY_MIN = 32, ENTROPY_MAX = 512, MACHINE_ID_SIZE = 32 };

/*
 * A small file on a tmpfs that is also mapped. Writing to the mapping runs no kernel code, and under emulation code that
 * runs for the first time after a restore costs milliseconds.
 */
struct mapped {
	int fd;
	char *bytes;
};

enum { MAPPED_SIZE = 4096 };

static struct mapped generation = { -1, NULL };
static int random_device = -1;

static void map(struct mapped *file, const char *path)
{
	void *bytes;

	file->fd = open(path, O_RDWR | O_CLOEXEC);
	bytes = mmap(NULL, MAPPED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
	if (bytes != MAP_FAILED)
		file->bytes = bytes;
}

/* The file's size while it can be reached through its mapping, else -1: root in the guest may have cut it. */
static off_t mapped_size(const struct mapped *file)
{
	struct stat status;

	if (!file->bytes || fstat(file->fd, &status) || status.st_size > MAPPED_SIZE)
		return -1;
	return status.st_size;
}

/* Make `content` all that is in the file. */
static int replace(const struct mapped *file, const char *content, size_t length)
{
	if (mapped_size(file) == (off_t)length) {
		memcpy(file->bytes, content, length);
		return 0;
	}
	if (pwrite(file->fd, content, length, 0) != (ssize_t)length || ftruncate(file->fd, (off_t)length))
		return errno;
	return 0;
}

void identity_prepare(void)
{
	random_device = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	map(&generation, "/run/pandastack/generation");
}

static int set_clock(const struct tlv_item *item)
{
	struct timespec now;
	uint64_t ns;

	if (!tlv_uint(item, &ns))
		return EINVAL;
	now.tv_sec = (time_t)(ns / 1000000000u);
	now.tv_nsec = (long)(ns % 1000000000u);
	return clock_settime(CLOCK_REALTIME, &now) ? errno : 0;
}

static int add_entropy(const struct tlv_item *item)
{
	union { /* struct rand_pool_info ends in an array of unknown size */
		struct rand_pool_info info;
		uint8_t bytes[sizeof(struct rand_pool_info) + ENTROPY_MAX];
	} pool;

	if (item->length < ENTROPY_MIN || item->length > ENTROPY_MAX)
		return EINVAL;
	pool.info.entropy_count = (int)item->length * 8;
	pool.info.buf_size = (int)item->length;
	memcpy(pool.bytes + sizeof pool.info, item->value, item->length);
	if (ioctl(random_device, RNDADDENTROPY, &pool) || ioctl(random_device, RNDRESEEDCRNG))
		return errno;
	return 0;
}

static int take_machine_id(const struct tlv_item *item)
{
	if (item->length != MACHINE_ID_SIZE)
		return EINVAL;
	set_machine_id((const char *)item->value, item->length);
	return 0;
}

/*
 * The number that programs watch to learn that they run in another copy than a moment ago. It comes last: a program that
 * sees a new one finds the rest of the identity in place, the kernel's random numbers above all.
 */
static int publish(uint64_t number)
{
	if (!options.identity)
		return 0;
	if (mapped_size(&generation) != sizeof number)
		return replace(&generation, (const char *)&number, sizeof number);
	*(volatile uint64_t *)(void *)generation.bytes = number; /* at once: somebody may be reading it */
	return 0;
}

static int apply(const struct tlv_item *item, const char **what)
{
	uint64_t number = 0;

	if (item->key == RESUME_ENV) {
		*what = "environment";
		return sandbox_env_add(item->value, item->length);
	}
	if (item->key == RESUME_MACHINE_ID && item->length == MACHINE_ID_SIZE)
		processes_owner(item->value);
	if (!options.identity)
		return 0;
	if (item->key >= RESUME_CPUS && item->key <= RESUME_DISK_MB && !tlv_uint(item, &number))
		return EINVAL;
	switch (item->key) {
	case RESUME_TIME_NS: *what = "clock"; return set_clock(item);
	case RESUME_ENTROPY: *what = "entropy"; return add_entropy(item);
	case RESUME_HOSTNAME: *what = "hostname"; return set_hostname((const char *)item->value, item->length);
	case RESUME_MACHINE_ID: *what = "machine-id"; return take_machine_id(item);
	case RESUME_CPUS: *what = "cpus"; return set_cpus(number);
	case RESUME_MEMORY_MB: *what = "memory"; return set_memory(number);
	case RESUME_DISK_MB: *what = "disk"; return grow_disk(number);
	default: return 0;
	}
}

/* Their other ends belong to the machine that this is a copy of, or to a time that did not happen. */
static void close_connections(void)
{
	listeners_close();
	tunnels_close();
}

static void answer(const uint8_t *nonce, const char *what, int error)
{
	struct tlv_writer w = out_tlv(512);

	tlv_put(&w, RESUMED_NONCE, nonce, NONCE_SIZE);
	tlv_put_u32(&w, RESUMED_VERSION, PROTO_VERSION);
	if (what) {
		char text[256];

		strcpy(text, what);
		strcat(text, ": ");
		strncat(text, strerror(error), 200);
		tlv_put_text(&w, RESUMED_ERROR, text);
	}
	out_commit_tlv(F_RESUMED, 0, &w);
}

/* Keys that must be there: without one of them the machine would be half another's. */
static const uint32_t needed = 1u << RESUME_TIME_NS | 1u << RESUME_ENTROPY | 1u << RESUME_GENERATION |
                               1u << RESUME_HOSTNAME | 1u << RESUME_MACHINE_ID;

void identity_resume(const uint8_t *payload, uint32_t length)
{
	struct tlv_reader reader = { payload, payload + length };
	struct tlv_item item;
	const uint8_t *nonce;
	const char *what = NULL;
	uint64_t number = 0;
	uint32_t seen = 0;
	int more, error = 0;

	if (tlv_next(&reader, &item) != 1 || item.key != RESUME_NONCE || item.length != NONCE_SIZE)
		return; /* the tail of a frame that was cut, not a RESUME */
	nonce = item.value;
	sandbox_env_begin();
	while (!error && (more = tlv_next(&reader, &item)) != 0) {
		what = "request";
		error = more < 0 ? EINVAL : apply(&item, &what);
		if (more > 0 && item.key < 32)
			seen |= 1u << item.key;
		if (more > 0 && !error && item.key == RESUME_GENERATION && !tlv_uint(&item, &number))
			error = EINVAL;
	}
	if (!error && options.identity && (seen & needed) != needed) {
		what = "incomplete identity";
		error = EINVAL;
	}
	if (!error) {
		what = "generation";
		error = publish(number);
	}
	if (!error) {
		sandbox_env_commit();
		/* Before any program runs. Also a machine that was only away has no connections outside any more. */
		if (options.identity && !(seen & 1u << RESUME_CONNECTED))
			connections_abort();
		if (!(seen & 1u << RESUME_CONTINUES))
			close_connections();
		if (seen & 1u << RESUME_FROZEN)
			freeze();
		else
			thaw();
	}
	answer(nonce, error ? what : NULL, error);
}

void identity_continue(const uint8_t *payload, uint32_t length)
{
	struct tlv_item time = { RESUME_TIME_NS, length, payload };

	if (options.identity && length)
		(void)set_clock(&time); /* a clock that is a little late is better than frozen programs */
	thaw();
}
