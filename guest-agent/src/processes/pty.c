#include "processes/pty.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

void pty_resize(const struct process *p)
{
	struct winsize size = { .ws_row = p->rows, .ws_col = p->cols };

	ioctl(p->outputs[0].fd, TIOCSWINSZ, &size);
}

bool pty_open(struct process *p, int *child)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), unlocked = 0;

	if (master < 0)
		return false;
	p->outputs[0].fd = master;
	/* One descriptor for each direction: they are watched and closed apart. */
	p->in.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	if (p->in.fd < 0 || ioctl(master, TIOCSPTLCK, &unlocked))
		return false;
	pty_resize(p);
	*child = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return *child >= 0;
}
