/* A fork server: zygote_serve() returns in each forked child, ready for a program that nobody
 * trusts, and never in the parent. The other side is sandbox/helpers.py (Zygote).
 *
 * The process must have exactly one thread when it calls zygote_serve(). Until it forks it runs
 * trusted code only. Descriptor 3 is the socket.
 */
#ifndef GEEX_ZYGOTE_H
#define GEEX_ZYGOTE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ZYGOTE_SOCKET 3
#define ZYGOTE_MAGIC 0x67656578u
#define ZYGOTE_COMPILING 1u
#define ZYGOTE_NEW_TMP 2u
#define ZYGOTE_LOCK_WORK 4u
#define ZYGOTE_MAX_FDS 32

struct zygote_request {
  uint32_t magic, flags;
  int32_t uid, channel_fd, unused0;
  uint32_t filter_bytes, pid_count, unused1, unused2;
  uint32_t pid_offset[4];
  uint64_t cpu, data, as, fsize, nproc, nofile, tmp_bytes, unused3, unused4;
  char tmp[64];
} __attribute__((packed));

struct zygote_event {
  uint32_t kind; /* 1 started, 2 ended */
  int32_t pid, status;
  uint32_t unused;
  uint64_t cpu_us, maxrss, unused2;
} __attribute__((packed));

static void zygote_die(const char *what) {
  dprintf(2, "sandbox: %s: %s\n", what, strerror(errno));
  _exit(127);
}

static void zygote_limit(int which, uint64_t value, uint64_t extra) {
  struct rlimit have, want;
  if (getrlimit(which, &have)) zygote_die("getrlimit");
  want.rlim_cur = have.rlim_max < value ? have.rlim_max : value;
  want.rlim_max = have.rlim_max < value + extra ? have.rlim_max : value + extra;
  if (setrlimit(which, &want)) zygote_die("setrlimit");
}

static void zygote_drop(int uid) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (setgroups(0, NULL)) errno = 0; /* refused in a user namespace of one user */
  if ((int)getgid() != uid && setresgid(uid, uid, uid)) zygote_die("setresgid");
  if ((int)getuid() != uid && setresuid(uid, uid, uid)) zygote_die("setresuid");
  if (syscall(SYS_capset, &header, none)) zygote_die("capset");
}

/* Puts here[i] at number there[i] and closes all else from 3 on. There is ascending, 0 1 2 first. */
__attribute__((unused)) static void zygote_place(const int *there, const int *here, int count) {
  int moved[ZYGOTE_MAX_FDS], high = there[count - 1] + 1;
  for (int i = 0; i < count; i++)
    if (here[i] >= high) high = here[i] + 1;
  for (int i = 0; i < count; i++)
    if ((moved[i] = fcntl(here[i], F_DUPFD, high)) < 0) zygote_die("dup");
  for (int i = 0; i < count; i++)
    if (dup2(moved[i], there[i]) < 0) zygote_die("dup2");
  for (unsigned i = 3, start = 3; i <= (unsigned)count; i++) {
    unsigned end = i < (unsigned)count ? (unsigned)there[i] : ~0u;
    if (end > start) syscall(SYS_close_range, start, end - (i < (unsigned)count), 0);
    start = end + 1;
  }
}

/* In the child, with its descriptors in place: /tmp, limits, identity, filter. */
static void zygote_enter(struct zygote_request *r, unsigned char *filter) {
  if (r->flags & ZYGOTE_NEW_TMP) {
    char options[96];
    unsigned long quiet = MS_NOSUID | MS_NODEV;
    if (unshare(CLONE_NEWNS)) zygote_die("unshare");
    snprintf(options, sizeof options, "mode=1777,size=%llu,nr_inodes=10000",
             (unsigned long long)r->tmp_bytes);
    if (mount("tmpfs", r->tmp, "tmpfs", quiet, options)) zygote_die("mount tmp");
    if (r->flags & ZYGOTE_LOCK_WORK &&
        mount("none", "/geex-work", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | quiet, NULL))
      zygote_die("mount work");
  }
  zygote_limit(RLIMIT_CPU, r->cpu, 1);
  zygote_limit(RLIMIT_DATA, r->data, 0);
  zygote_limit(RLIMIT_AS, r->as, 0);
  zygote_limit(RLIMIT_FSIZE, r->fsize, 0);
  zygote_limit(RLIMIT_NPROC, r->nproc, 0);
  zygote_limit(RLIMIT_NOFILE, r->nofile > 300 ? r->nofile : 300, 0);
  zygote_limit(RLIMIT_CORE, 0, 0);
  zygote_limit(RLIMIT_MSGQUEUE, 0, 0);
  zygote_limit(RLIMIT_MEMLOCK, 0, 0);
  if (r->uid >= 0) zygote_drop(r->uid);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) zygote_die("no_new_privs");
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* as after an exec: /proc/self belongs to it */
  if (r->filter_bytes) {
    struct sock_fprog program = {(unsigned short)(r->filter_bytes / 8), (void *)filter};
    uint32_t pid = (uint32_t)getpid();
    for (uint32_t i = 0; i < r->pid_count && i < 4; i++)
      memcpy(filter + r->pid_offset[i], &pid, 4);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) zygote_die("seccomp");
  }
}

/* What a fork server's child does first. fds: payload, stdin, stdout, stderr, [channel], further
 * ones, which end up in fds from 0 on. Returns the payload's descriptor. */
__attribute__((unused)) static int zygote_become(struct zygote_request *r, unsigned char *filter, int *fds, int count,
                         int *extra_count) {
  int taken = 4, payload;
  setsid();
  close(ZYGOTE_SOCKET);
  /* Nothing that we hold may stand where the channel is to be. */
  for (int i = 0; i < count; i++)
    if (fds[i] < 4 || fds[i] == r->channel_fd) {
      int moved = fcntl(fds[i], F_DUPFD, 260);
      close(fds[i]);
      fds[i] = moved;
    }
  for (int i = 0; i < 3; i++)
    if (dup2(fds[1 + i], i) < 0) zygote_die("dup2");
  if (r->channel_fd >= 0) {
    if (dup2(fds[4], r->channel_fd) < 0) zygote_die("dup2");
    close(fds[4]);
    taken = 5;
  }
  payload = fds[0];
  for (int i = 1; i < 4; i++) close(fds[i]);
  *extra_count = count - taken;
  memmove(fds, fds + taken, sizeof(int) * (size_t)*extra_count);
  for (int s = 1; s < NSIG; s++)
    if (s != SIGKILL && s != SIGSTOP && (r->flags & ZYGOTE_COMPILING || s == SIGXCPU || s == SIGXFSZ
        || s == SIGPIPE || s == SIGCHLD))
      signal(s, SIG_DFL);
  zygote_enter(r, filter);
  if (!(r->flags & ZYGOTE_COMPILING) && chdir(r->tmp)) zygote_die("chdir");
  return payload;
}

/* Returns 0 in each child. *payload is malloc'ed and ends with a NUL that *length leaves out. */
__attribute__((unused)) static int zygote_serve(char **payload, size_t *length, int *fds, int *fd_count) {
  for (;;) {
    static unsigned char buffer[16384];
    char control[CMSG_SPACE(sizeof(int) * ZYGOTE_MAX_FDS)];
    struct iovec io = {buffer, sizeof buffer};
    struct msghdr message;
    struct zygote_request *request = (void *)buffer;
    struct zygote_event event;
    int received[ZYGOTE_MAX_FDS], count = 0, status;
    struct rusage usage;
    memset(&message, 0, sizeof message);
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = recvmsg(ZYGOTE_SOCKET, &message, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < (ssize_t)sizeof *request || request->magic != ZYGOTE_MAGIC) _exit(0);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
      if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received, CMSG_DATA(c), sizeof(int) * (size_t)count);
      }
    pid_t pid = fork();
    if (pid == 0) {
      int extra = 0;
      int file = zygote_become(request, buffer + sizeof *request, received, count, &extra);
      struct stat info;
      if (fstat(file, &info)) zygote_die("payload");
      char *text = malloc((size_t)info.st_size + 1);
      if (!text) zygote_die("payload");
      for (off_t at = 0; at < info.st_size;) {
        ssize_t part = pread(file, text + at, (size_t)(info.st_size - at), at);
        if (part <= 0) zygote_die("payload");
        at += part;
      }
      text[info.st_size] = 0;
      close(file);
      *payload = text;
      *length = (size_t)info.st_size;
      memcpy(fds, received, sizeof(int) * (size_t)extra);
      *fd_count = extra;
      return 0;
    }
    for (int i = 0; i < count; i++) close(received[i]);
    memset(&event, 0, sizeof event);
    event.kind = 1;
    event.pid = pid;
    if (send(ZYGOTE_SOCKET, &event, sizeof event, 0) < 0 || pid < 0) _exit(1);
    while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    event.kind = 2;
    event.status = status;
    event.cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                   (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    event.maxrss = (uint64_t)usage.ru_maxrss * 1024u;
    if (send(ZYGOTE_SOCKET, &event, sizeof event, 0) < 0) _exit(1);
  }
}
#endif
