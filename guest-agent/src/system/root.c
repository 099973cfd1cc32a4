#include "system/root.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/changes.h"
#include "system/command_line.h"
#include "system/panic.h"
#include "system/uevents.h"

enum { ROOT_WAIT_MS = 5000 };

void mount_early(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
}

static void wait_for(const char *device)
{
	while (access(device, F_OK))
		if (!uevents_wait(ROOT_WAIT_MS))
			power_off("no root disk");
}

/* Where the writes go: the second disk, else memory. */
static void mount_upper(void)
{
	int failed;

	mkdir("/upper", 0755);
	if (access("/dev/vdb", F_OK))
		failed = mount("tmpfs", "/upper", "tmpfs", MS_NOATIME, "mode=0755");
	else
		failed = mount("/dev/vdb", "/upper", "ext4", MS_NOATIME, NULL);
	if (failed)
		power_off("cannot mount the upper disk");
	mkdir("/upper/upper", 0755);
	mkdir("/upper/work", 0755);
}

static void move_into(const char *name)
{
	char to[32] = "/new";

	strcat(to, name);
	mkdir(to, 0755);
	if (mount(name, to, NULL, MS_MOVE, NULL))
		power_off("cannot move a mount");
}

void switch_root(void)
{
	wait_for("/dev/vda");
	mkdir("/lower", 0755);
	mkdir("/new", 0755);
	if (mount("/dev/vda", "/lower", "erofs", MS_RDONLY | MS_NOATIME, NULL))
		power_off("cannot mount the root disk");
	mount_upper();
	changes_between("/upper/upper", "/lower"); /* out of sight once the root is the overlay */
	if (mount("overlay", "/new", "overlay", MS_NOATIME,
	          "lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work"))
		power_off("cannot mount the root");
	move_into("/proc");
	move_into("/sys");
	move_into("/dev");
	if (chdir("/new") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		power_off("cannot switch to the root");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0)
		return;
	(void)!write(fd, text, strlen(text));
	close(fd);
}

/* A file in memory over one of the image's: cheap to write, and images made here keep their own. */
static void cover(const char *path, const char *cover_path, const char *text)
{
	struct stat st;

	write_file(cover_path, text);
	if (!lstat(path, &st) && !S_ISREG(st.st_mode))
		unlink(path);
	if (lstat(path, &st))
		write_file(path, "");
	mount(cover_path, path, NULL, MS_BIND, NULL);
}

static void cover_identity(void)
{
	char hosts[256] = "127.0.1.1 ";

	memset(hosts + strlen(hosts), ' ', 64); /* a hostname of any length: see identity.c */
	strcat(hosts, "\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
	cover("/etc/machine-id", "/run/machine-id", "uninitialized\n");
	cover("/etc/hostname", "/run/hostname", "localhost\n");
	cover("/etc/hosts", "/run/hosts", hosts);
	cover("/proc/sys/kernel/random/boot_id", "/run/pandastack/boot_id", "00000000-0000-0000-0000-000000000000\n");
	write_file("/run/pandastack/generation", "--------"); /* eight bytes: see identity.c */
	if (!strcmp(command_line("pandastack.nic"), "user"))
		cover("/etc/resolv.conf", "/run/resolv.conf", "nameserver 10.0.2.3\n");
}

/* With favordynmods every program that starts may join its group without the wait of milliseconds for an RCU period. */
static void mount_cgroups(void)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, "favordynmods"))
		mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, NULL);
}

void mount_late(void)
{
	mkdir("/run", 0755);
	mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	mkdir("/run/lock", 01777);
	mkdir("/run/pandastack", 0755);
	mkdir("/tmp", 01777);
	chmod("/tmp", 01777);
	mkdir("/dev/pts", 0755);
	mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666");
	mkdir("/dev/shm", 01777);
	mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_cgroups();
	(void)!symlink("/proc/self/fd", "/dev/fd");
	(void)!symlink("/proc/self/fd/0", "/dev/stdin");
	(void)!symlink("/proc/self/fd/1", "/dev/stdout");
	(void)!symlink("/proc/self/fd/2", "/dev/stderr");
	mkdir("/etc", 0755);
	mkdir("/root", 0700);
	mkdir("/workspace", 0755);
	cover_identity();
}
