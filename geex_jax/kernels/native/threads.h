// A loop cut into parts that the calling thread and XLA's thread pool take one after the other.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace geex {

constexpr int64_t kPartBytes = 128 << 10;  // weights of one part
constexpr int64_t kSerialBytes = 32 << 10; // less than this is not worth a second thread

// Calls body(from, to) on parts of [0, n), multiples of 16 but for the last; `bytes` each.
//
// The caller works too and waits only for parts that another thread has begun, so that it cannot
// wait for a pool whose threads all wait likewise. A task that starts late finds nothing left, and
// touches only the counters, which it shares.
template <typename Body>
void ForEachPart(xla::ffi::ThreadPool& pool, int64_t n, int64_t bytes, const Body& body) {
  const int64_t threads = pool.num_threads();
  if (threads <= 1 || n * bytes < kSerialBytes) {
    body(int64_t{0}, n);
    return;
  }
  int64_t size = std::max<int64_t>(kPartBytes / std::max<int64_t>(bytes, 1), 16);
  size = std::min(size, (n + 2 * threads - 1) / (2 * threads));
  size = (size + 15) / 16 * 16;
  const int64_t parts = (n + size - 1) / size;
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  auto work = [shared, parts, size, n, &body] {
    for (;;) {
      const int64_t part = shared->next.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts) return;
      body(part * size, std::min(n, (part + 1) * size));
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = 1; i < std::min(threads, parts); ++i) {
    auto task = work;
    pool.Schedule(std::move(task));
  }
  work();
  for (int spins = 0; shared->done.load(std::memory_order_acquire) < parts; ++spins) {
    if (spins < 4000) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace geex
