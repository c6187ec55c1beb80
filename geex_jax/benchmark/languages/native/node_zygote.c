/* Makes a node process a fork server (zygote.h), and is what its children trust.
 *
 * Built as a shared library that is used twice: node loads it as an addon, and LD_PRELOAD lets it
 * stand before the C library for a few of its functions. The few declarations of Node-API that
 * it needs stand here, because they never change and the headers are seldom installed.
 *
 * The proof of success stays in this file's variables: JavaScript never sees it.
 */
#include "zygote.h"

#include <dlfcn.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/vfs.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
extern int napi_get_uv_event_loop(napi_env, void **);
extern int uv_loop_fork(void *);
extern int napi_add_env_cleanup_hook(napi_env, void (*)(void *), void *);
extern int napi_create_function(napi_env, const char *, size_t, napi_callback, void *,
                                napi_value *);
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
extern int napi_create_string_utf8(napi_env, const char *, size_t, napi_value *);
extern int napi_create_array(napi_env, napi_value *);
extern int napi_set_element(napi_env, napi_value, uint32_t, napi_value);
extern int napi_create_int32(napi_env, int32_t, napi_value *);
extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *,
                            void **);
extern int napi_get_value_int32(napi_env, napi_value, int32_t *);
extern int napi_get_value_string_utf8(napi_env, napi_value, char *, size_t, size_t *);
extern int napi_throw_error(napi_env, const char *, const char *);

#ifdef __x86_64__
#define COND_VERSION "GLIBC_2.3.2" /* an older one with another layout has the same name */
#else
#define COND_VERSION "GLIBC_2.17"
#endif
#define TEXTS 4 /* code, tests, tests as they are judged, names to lock */
#define FAILED 84

struct header {
  int32_t channel, first, second;
  uint32_t lengths[TEXTS];
} __attribute__((packed));

static pid_t parent; /* the fork server; 0: not one */
static pid_t child;
static pthread_t main_thread;
static int channel, first, second, ended, failed, loaded;

/* V8 marks its memory as not to be inherited by forks. Undoing that is all it takes. */
static void inherit_all_memory(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  unsigned long from, to;
  char line[512];
  if (!maps) zygote_die("/proc/self/maps");
  while (fgets(line, sizeof line, maps))
    if (sscanf(line, "%lx-%lx", &from, &to) == 2) madvise((void *)from, to - from, MADV_DOFORK);
  fclose(maps);
}

/* Runs when node tears its environment down, which it does only after an event loop that has
 * run empty: not after process.exit(), nor after an error. */
static void at_natural_end(void *unused) {
  (void)unused;
  if (getpid() != child) return;
  if (ended && !failed) {
    char digits[16];
    int size = snprintf(digits, sizeof digits, "%d", first ^ second);
    if (write(channel, digits, (size_t)size) < 0) _exit(1);
  }
  _exit(failed ? FAILED : 0);
}

static napi_value serve(napi_env env, napi_callback_info info) {
  (void)info;
  static char *text;
  static size_t length;
  int fds[ZYGOTE_MAX_FDS], count = 0;
  struct header head;
  void *loop;
  napi_value all, item;
  if (parent) return NULL;
  parent = getpid();
  inherit_all_memory();
  zygote_serve(&text, &length, fds, &count);
  child = getpid();
  main_thread = pthread_self();
  if (napi_get_uv_event_loop(env, &loop) || uv_loop_fork(loop)) zygote_die("event loop");
  napi_add_env_cleanup_hook(env, at_natural_end, NULL);
  if (length < sizeof head) zygote_die("payload");
  memcpy(&head, text, sizeof head);
  channel = head.channel;
  first = head.first;
  second = head.second;
  memset(text, 0, sizeof head);
  napi_create_array(env, &all);
  napi_create_int32(env, (int32_t)child, &item);
  napi_set_element(env, all, TEXTS, item);
  size_t at = sizeof head;
  for (uint32_t i = 0; i < TEXTS; at += head.lengths[i++]) {
    if (at + head.lengths[i] > length) zygote_die("payload");
    if (napi_create_string_utf8(env, text + at, head.lengths[i], &item)) zygote_die("payload");
    napi_set_element(env, all, i, item);
  }
  free(text);
  return all;
}

/* The tests ran to their end. */
static napi_value tests_ended(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
  ended = 1;
  return NULL;
}

/* An assertion failed: fail(message). */
static napi_value fail(napi_env env, napi_callback_info info) {
  static char text[4096];
  size_t count = 1, size = 0;
  napi_value argument;
  failed = 1;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) || count < 1) return NULL;
  if (napi_get_value_string_utf8(env, argument, text, sizeof text, &size)) return NULL;
  if (write(2, text, size) < 0) return NULL;
  return NULL;
}

/* leave(status): ends the process, and proves nothing. */
static napi_value leave(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  int32_t status = 1;
  if (!napi_get_cb_info(env, info, &count, &argument, NULL, NULL) && count == 1)
    napi_get_value_int32(env, argument, &status);
  _exit(status);
}

static int is_memory(int fd) {
  struct statfs where;
  char name[32], target[64];
  if (fd < 0 || fstatfs(fd, &where) || where.f_type != PROC_SUPER_MAGIC) return 0;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(name, target, sizeof target);
  return size < 4 || memcmp(target + size - 4, "/mem", 4) == 0;
}

/* All files that JavaScript opens come by here; the process's own memory is not for it. */
int open64(const char *path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    __builtin_va_list rest;
    __builtin_va_start(rest, flags);
    mode = __builtin_va_arg(rest, mode_t);
    __builtin_va_end(rest);
  }
  int fd = openat(AT_FDCWD, path, flags, mode);
  if (child && is_memory(fd)) {
    close(fd);
    errno = EACCES;
    return -1;
  }
  return fd;
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

/* The threads of the fork server are not in its children, and V8's garbage collector gives them
 * work now and then that the main thread does itself if nobody else does. When the event loop has
 * run empty, node waits until they have done it: that is a natural end. */
int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *);
  if (child && pthread_equal(pthread_self(), main_thread)) at_natural_end(NULL);
  if (!real) real = (int (*)(pthread_cond_t *, pthread_mutex_t *))dlvsym(
      RTLD_NEXT, "pthread_cond_wait", COND_VERSION);
  if (!real) zygote_die("pthread_cond_wait");
  return real(condition, mutex);
}

/* On its way out after an error, node joins those threads, whose places others may have taken,
 * and destroys what they wait on: it would wait for them or give up. It ends without all that. */
int pthread_join(pthread_t thread, void **result) {
  static int (*real)(pthread_t, void **);
  if (child && pthread_equal(pthread_self(), main_thread)) return 0;
  if (!real) real = (int (*)(pthread_t, void **))dlsym(RTLD_NEXT, "pthread_join");
  if (!real) zygote_die("pthread_join");
  return real(thread, result);
}

int pthread_cond_destroy(pthread_cond_t *condition) {
  (void)condition;
  return 0;
}

int pthread_mutex_destroy(pthread_mutex_t *mutex) {
  (void)mutex;
  return 0;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback call;
  } functions[] = {
      {"serve", serve}, {"testsEnded", tests_ended}, {"fail", fail}, {"leave", leave}};
  if (loaded++) {
    napi_throw_error(env, NULL, "Cannot load native addon");
    return NULL;
  }
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, (size_t)-1, functions[i].call, NULL,
                             &function) ||
        napi_set_named_property(env, exports, functions[i].name, function))
      return NULL;
  }
  return exports;
}
