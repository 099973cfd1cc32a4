#include "system/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files/base.h"
#include "system/boot_id.h"
#include "system/command_line.h"
#include "system/names.h"
#include "system/panic.h"
#include "system/uevents.h"

#define ROOT_DISK "/dev/vda"
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t) /* Linux, fs/ext4/ext4.h */

#define CHECKER "/e2fsck"

enum { ROOT_WAIT_MS = 5000, GROW_WAIT_MS = 5000, BLOCK = 4096, BLANK_BYTES = 512 };
enum { FSCK_DONE = 1 | 2, FSCK_FAILED = 8 }; /* e2fsck(8), "exit code": corrected; restart, if it was mounted */

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

static uint64_t size_of_root(void)
{
	int disk = open(ROOT_DISK, O_RDONLY | O_CLOEXEC);
	uint64_t size = 0;

	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size))
		power_off("cannot open the root disk");
	close(disk); /* and with it goes what the kernel has read of the disk: it may become another */
	return size;
}

/* A machine with a blank root disk is to be captured: the disk comes when a copy of the machine is restored. */
static void wait_for_content(void)
{
	if (size_of_root() > BLANK_BYTES)
		return;
	/* The host reads this: engine/build/started.py. */
	dprintf(2, "agent: waiting for the root disk; the boot id is at %llx\n", (unsigned long long)boot_id_place());
	while (size_of_root() <= BLANK_BYTES)
		uevents_wait(-1);
}

/* The checker's exit code; one that did not run has left everything as it was. */
static int run_checker(char *how)
{
	char *const argv[] = { CHECKER, how, ROOT_DISK, NULL };
	char *const environment[] = { NULL };
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execve(CHECKER, argv, environment);
		_exit(FSCK_FAILED);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : FSCK_FAILED;
}

/*
 * The initramfs of a machine that starts from the disk of one that was not shut down has a checker. What it would ask
 * about is answered with yes: there is nobody to ask, and a disk that stays damaged serves nobody.
 */
static void check_root(void)
{
	int result;

	if (access(CHECKER, X_OK))
		return;
	result = run_checker("-p");
	if (result & ~FSCK_DONE)
		result = run_checker("-y");
	if (result & ~FSCK_DONE)
		power_off("the root disk is damaged beyond repair");
	unlink(CHECKER); /* the initramfs is memory that would stay used */
}

int grow_file_system(int directory, uint64_t bytes)
{
	uint64_t blocks = bytes / BLOCK;

	return ioctl(directory, EXT4_IOC_RESIZE_FS, &blocks) ? errno : 0;
}

/* The file system may be smaller than its disk, which was made larger while the guest was off. */
static void grow_root(void)
{
	int root = open("/new", O_RDONLY | O_DIRECTORY | O_CLOEXEC), disk = open(ROOT_DISK, O_RDONLY | O_CLOEXEC);
	uint64_t size;

	if (root < 0 || disk < 0 || ioctl(disk, BLKGETSIZE64, &size))
		power_off("cannot open the root");
	if (grow_file_system(root, size))
		power_off("cannot grow the root");
	close(root);
	close(disk);
}

int wait_for_size(int disk, uint64_t wanted)
{
	uint64_t size;

	uevents_open(); /* first, so that a change after the look is not missed */
	do {
		if (ioctl(disk, BLKGETSIZE64, &size) || size >= wanted) {
			uevents_close();
			return size >= wanted ? 0 : errno;
		}
	} while (uevents_wait(GROW_WAIT_MS));
	uevents_close();
	return ETIMEDOUT;
}

int grow_disk(uint64_t megabytes)
{
	int root = base_root(), disk = open(ROOT_DISK, O_RDONLY | O_CLOEXEC), error = 0;

	if (root < 0 || disk < 0)
		error = errno;
	else
		error = wait_for_size(disk, megabytes * 1024 * 1024);
	if (!error)
		error = grow_file_system(root, megabytes * 1024 * 1024);
	if (root >= 0)
		close(root);
	if (disk >= 0)
		close(disk);
	return error;
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
	wait_for(ROOT_DISK);
	wait_for_content();
	check_root();
	mkdir("/new", 0755);
	if (mount(ROOT_DISK, "/new", "ext4", MS_NOATIME, NULL))
		power_off("cannot mount the root disk");
	grow_root();
	if (!base_files("/new", ROOT_DISK))
		power_off("cannot open the root disk");
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

/* The network of a build is not that of the image: its resolver is laid over the image's file. */
static void lend_resolver(const char *address)
{
	static const char file[] = "/etc/resolv.conf", lent[] = "/run/resolv.conf";
	char line[64] = "nameserver ";
	struct stat st;

	strncat(line, address, 40);
	strcat(line, "\n");
	write_file(lent, line);
	if (!lstat(file, &st) && !S_ISREG(st.st_mode))
		unlink(file);
	if (lstat(file, &st))
		write_file(file, "");
	mount(lent, file, NULL, MS_BIND, NULL);
}

/* A resolver answers at the gateway. An image that names its own keeps that. */
static void name_resolver(void)
{
	static const char file[] = "/etc/resolv.conf";
	struct stat st;

	if (lstat(file, &st) || (S_ISREG(st.st_mode) && !st.st_size))
		write_file(file, "nameserver 10.0.2.2\n");
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
	const char *word;
	bool user, tap;

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
	write_file("/run/pandastack/generation", "--------"); /* eight bytes: see identity.c */
	names_prepare();
	word = command_line("pandastack.nic");
	user = !strcmp(word, "user");
	tap = !strcmp(word, "tap");
	word = command_line("pandastack.lend");
	if (user)
		lend_resolver("10.0.2.3");
	else if (*word)
		lend_resolver(word);
	else if (tap)
		name_resolver();
}
