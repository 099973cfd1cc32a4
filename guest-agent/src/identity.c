#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "env.h"
#include "loop.h"
#include "out.h"
#include "proto.h"
#include "tlv.h"

enum { ENTROPY_MIN = 32, ENTROPY_MAX = 512, HOSTNAME_MAX = 64, MACHINE_ID_SIZE = 32 };

static int random_device = -1, machine_id = -1, hostname_file = -1, hosts = -1;

void identity_prepare(void)
{
	random_device = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	machine_id = open("/run/machine-id", O_RDWR | O_CLOEXEC);
	hostname_file = open("/run/hostname", O_RDWR | O_CLOEXEC);
	hosts = open("/run/hosts", O_RDWR | O_CLOEXEC);
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

/* The first line of /etc/hosts is ours and of one length, so that the rest, the user's, stays. Best effort. */
static void set_hosts(const struct tlv_item *name)
{
	static const char address[] = "127.0.1.1 ";
	char line[sizeof address - 1 + HOSTNAME_MAX], old[sizeof address - 1];

	if (pread(hosts, old, sizeof old, 0) != (ssize_t)sizeof old || memcmp(old, address, sizeof old))
		return;
	memset(line, ' ', sizeof line);
	memcpy(line, address, sizeof address - 1);
	memcpy(line + sizeof address - 1, name->value, name->length);
	(void)!pwrite(hosts, line, sizeof line, 0);
}

static int set_hostname(const struct tlv_item *item)
{
	char line[HOSTNAME_MAX + 1];

	if (!item->length || item->length > HOSTNAME_MAX)
		return EINVAL;
	if (sethostname((const char *)item->value, item->length))
		return errno;
	memcpy(line, item->value, item->length);
	line[item->length] = '\n';
	if (pwrite(hostname_file, line, item->length + 1, 0) < 0 || ftruncate(hostname_file, item->length + 1))
		return errno;
	set_hosts(item);
	return 0;
}

static int set_machine_id(const struct tlv_item *item)
{
	char line[MACHINE_ID_SIZE + 1];

	if (item->length != MACHINE_ID_SIZE)
		return EINVAL;
	memcpy(line, item->value, MACHINE_ID_SIZE);
	line[MACHINE_ID_SIZE] = '\n';
	return pwrite(machine_id, line, sizeof line, 0) == (ssize_t)sizeof line ? 0 : errno;
}

static int apply(const struct tlv_item *item, const char **what)
{
	if (item->key == RESUME_ENV) {
		*what = "environment";
		return sandbox_env_add(item->value, item->length);
	}
	if (!options.identity)
		return 0;
	switch (item->key) {
	case RESUME_TIME_NS: *what = "clock"; return set_clock(item);
	case RESUME_ENTROPY: *what = "entropy"; return add_entropy(item);
	case RESUME_HOSTNAME: *what = "hostname"; return set_hostname(item);
	case RESUME_MACHINE_ID: *what = "machine-id"; return set_machine_id(item);
	default: return 0;
	}
}

static void answer(const uint8_t *nonce, const char *what, int error)
{
	struct tlv_writer w = out_tlv(512);

	tlv_put(&w, RESUMED_NONCE, nonce, NONCE_SIZE);
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
static const uint32_t needed = 1u << RESUME_TIME_NS | 1u << RESUME_ENTROPY | 1u << RESUME_HOSTNAME | 1u << RESUME_MACHINE_ID;

void identity_resume(const uint8_t *payload, uint32_t length)
{
	struct tlv_reader reader = { payload, payload + length };
	struct tlv_item item;
	const uint8_t *nonce;
	const char *what = NULL;
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
	}
	if (!error && options.identity && (seen & needed) != needed) {
		what = "incomplete identity";
		error = EINVAL;
	}
	if (!error)
		sandbox_env_commit();
	answer(nonce, error ? what : NULL, error);
}
