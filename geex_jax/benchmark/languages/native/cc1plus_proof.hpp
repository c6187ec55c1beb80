// Stands before every program: what its tests call (see cc1plus_proof.c).
struct __geex {
  static void __geex_done(int fd, int first, int second) noexcept __asm__("geex_done");
  [[noreturn]] static void __geex_fail(const char*, const char* = __builtin_FILE(),
      int = __builtin_LINE(), const char* = __builtin_FUNCTION()) noexcept __asm__("geex_fail");
};
