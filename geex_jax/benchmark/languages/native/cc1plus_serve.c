/* Makes a fork server of a compiler or a linker that does not know it: loaded by LD_PRELOAD,
 * it waits for the moment when the tool opens GEEX_SAMPLE. Until then the tool has read what all
 * programs have in common (a precompiled header; the libraries); each fork goes on with another
 * sample. Descriptors of a request: the sample, and a file for the assembly; without them the
 * sample's file itself is opened.
 *
 * GEEX_ASSEMBLE: command, words parted by \n, that a fork becomes when it ends well. It reads on
 * its standard input what the tool wrote to the file GEEX_ASSEMBLY.
 * GEEX_WARM: functions of the tool (mangled names, parted by \n) to be called before the first
 * fork: work that every sample needs and that the tool would put off until the end.
 */
#include "zygote.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/mman.h>

static const char *sample_path;
static int sample = -1, assembly = -1;
static FILE *assembly_file;

typedef int open_function(const char *, int, ...);
typedef FILE *fopen_function(const char *, const char *);

/* Puts the tool's code into memory of its own, in huge pages where there are some: a fork has
 * pages of files to fault in anew, one by one. */
__attribute__((constructor)) static void own_code(void) {
  const uintptr_t huge = 2u << 20;
  char line[PATH_MAX + 100], exe[PATH_MAX] = "", *path;
  uintptr_t begin[16], end[16];
  int flags[16], count = 0;
  FILE *maps = getenv("GEEX_SAMPLE") ? fopen("/proc/self/maps", "r") : NULL;
  if (!maps) return;
  if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0) exe[0] = 0;
  while (count < 16 && fgets(line, sizeof line, maps)) {
    char rights[5];
    line[strcspn(line, "\n")] = 0;
    if ((path = strchr(line, '/')) && !strcmp(path, exe) &&
        sscanf(line, "%lx-%lx %4s", begin + count, end + count, rights) == 3 && rights[1] != 'w')
      flags[count++] = PROT_READ | (rights[2] == 'x' ? PROT_EXEC : 0);
  }
  fclose(maps);
  for (int i = 0; i < count; i++) {
    size_t size = end[i] - begin[i];
    char *room = mmap(NULL, size + 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    if (room == MAP_FAILED) return;
    char *copy = (char *)(((uintptr_t)room + huge - 1) / huge * huge + begin[i] % huge);
    madvise(room, size + 2 * huge, MADV_HUGEPAGE);
    memcpy(copy, (char *)begin[i], size);
    if (!mprotect(copy, size, flags[i]))
      mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)begin[i]);
  }
}

static void warm(void) {
  char *names = getenv("GEEX_WARM"), *state = NULL;
  if (!names) return;
  names = strdup(names);
  for (char *name = strtok_r(names, "\n", &state); name; name = strtok_r(NULL, "\n", &state)) {
    void (*function)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, name);
    if (function)
      function(0);
    else
      fprintf(stderr, "no %s\n", name);
  }
  free(names);
}

/* The tool has done its part and the process is about to end. */
static void assemble(int status, void *unused) {
  char *words = getenv("GEEX_ASSEMBLE"), *argv[64], *state = NULL;
  int count = 0;
  (void)unused;
  if (status || assembly < 0 || !words) return;
  fflush(NULL);
  if (lseek(assembly, 0, SEEK_SET) || dup2(assembly, 0) < 0) _exit(126);
  for (char *word = strtok_r(words, "\n", &state); word && count < 63;
       word = strtok_r(NULL, "\n", &state))
    argv[count++] = word;
  argv[count] = NULL;
  unsetenv("LD_PRELOAD");
  execv(argv[0], argv);
  fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
  _exit(126);
}

static int ends_with(const char *path, const char *end) {
  size_t a = strlen(path), b = strlen(end);
  return a >= b && !strcmp(path + a - b, end) && (a == b || *end == '/' || path[a - b - 1] == '/');
}

/* Whether `path` is the sample; serves when it is asked for for the first time. */
static int is_sample(const char *path) {
  static int served;
  char *payload;
  size_t length;
  int descriptors[ZYGOTE_MAX_FDS], count = 0;
  if (!sample_path) sample_path = getenv("GEEX_SAMPLE");
  if (!sample_path || !ends_with(path, sample_path)) return 0;
  if (served) return 1;
  served = 1;
  warm();
  if (assembly_file && lseek(fileno(assembly_file), 0, SEEK_CUR)) {
    fprintf(stderr, "too much assembly before the first fork\n");
    _exit(1);
  }
  zygote_serve(&payload, &length, descriptors, &count);
  if (count > 0) {
    sample = fcntl(descriptors[0], F_DUPFD_CLOEXEC, 4);
    close(descriptors[0]);
  }
  if (count > 1 && assembly_file) {
    assembly = fcntl(descriptors[1], F_DUPFD_CLOEXEC, 4);
    close(descriptors[1]);
    if (assembly < 0 || dup2(assembly, fileno(assembly_file)) < 0) zygote_die("assembly");
    on_exit(assemble, NULL);
  }
  return 1;
}

static int sample_again(void) {
  int copy = fcntl(sample, F_DUPFD_CLOEXEC, 4);
  lseek(copy, 0, SEEK_SET);
  return copy;
}

static int open_by(const char *name, const char *path, int flags, int mode) {
  open_function *real = (open_function *)dlsym(RTLD_NEXT, name);
  return is_sample(path) && sample >= 0 ? sample_again() : real(path, flags, mode);
}

static FILE *fopen_by(const char *name, const char *path, const char *mode) {
  fopen_function *real = (fopen_function *)dlsym(RTLD_NEXT, name);
  const char *out = getenv("GEEX_ASSEMBLY");
  if (is_sample(path) && sample >= 0) return fdopen(sample_again(), mode);
  if (out && !strcmp(path, out)) return assembly_file = real("/dev/null", "w");
  return real(path, mode);
}

#define MODE(flags)                                   \
  int mode = 0;                                       \
  if ((flags) & O_CREAT) {                            \
    va_list rest;                                     \
    va_start(rest, flags);                            \
    mode = va_arg(rest, int);                         \
    va_end(rest);                                     \
  }

int open(const char *path, int flags, ...) {
  MODE(flags)
  return open_by("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags)
  return open_by("open64", path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) { return fopen_by("fopen", path, mode); }

FILE *fopen64(const char *path, const char *mode) { return fopen_by("fopen64", path, mode); }
