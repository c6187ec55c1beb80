// Stands in the tests for <assert.h>: macros and functions that a program named like the parts
// of `assert` do not matter here.
#include <assert.h>
#undef void
#undef __geex
#undef __geex_done
#undef __geex_fail
#undef assert
#define assert(expression) ((expression) ? (void)0 : ::__geex::__geex_fail(#expression))
