// y = rows * weights^T in float32 for more rows than one: rows [M, K], weights [N, K], y [M, N].
//
// Out-major weights are read once, in their order, and not packed: XLA packs them in each call,
// which costs a decode step of 16 rows more than the products. (One row XLA reads at the memory's
// speed itself.)
#include <algorithm>
#include <cstdint>

#include "floats.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace geex {
namespace {

constexpr int kWeights = 4;  // weight rows of a tile
#if defined(__AVX512F__)
constexpr int kRows = 6;  // 24 sums, 4 weights and a row's part: 29 of 32 registers
#else
constexpr int kRows = 1;
#endif
constexpr int64_t kPartBytes = 128 << 10;  // of weights, that a thread takes at once
constexpr int64_t kBlock = 96;  // rows that stay in the L2 while a part's weights pass by

template <int R>
inline void Tile(const float* x, const float* w, int64_t k, float* y, int64_t n) {
  Floats sums[R][kWeights];
  for (auto& row : sums)
    for (Floats& sum : row) sum = Floats::Fill(0);
  int64_t i = 0;
  for (; i + kFloats <= k; i += kFloats) {
    Floats part[kWeights];
    for (int j = 0; j < kWeights; ++j) {
      part[j] = Floats::Load(w + j * k + i);
      // Rows are short for the hardware's prefetcher, which begins anew with every page.
      __builtin_prefetch(w + (j + kWeights) * k + i);
    }
    for (int r = 0; r < R; ++r) {
      const Floats row = Floats::Load(x + r * k + i);
      for (int j = 0; j < kWeights; ++j) sums[r][j].AddProduct(part[j], row);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kWeights; ++j) {
      float sum = sums[r][j].Sum();
      for (int64_t rest = i; rest < k; ++rest) sum += x[r * k + rest] * w[j * k + rest];
      y[r * n + j] = sum;
    }
}

// Rows [0, m) by weight rows [from, to).
void Part(const float* x, int64_t m, const float* w, int64_t k, float* y, int64_t n, int64_t from,
          int64_t to) {
  for (int64_t first = 0; first < m; first += kBlock) {
    const int64_t last = std::min(m, first + kBlock);
    int64_t j = from;
    for (; j + kWeights <= to; j += kWeights) {
      int64_t r = first;
      for (; r + kRows <= last; r += kRows) Tile<kRows>(x + r * k, w + j * k, k, y + r * n + j, n);
      const float* row = x + r * k;
      float* out = y + r * n + j;
      switch (last - r) {
        case 1: Tile<1>(row, w + j * k, k, out, n); break;
        case 2: Tile<2>(row, w + j * k, k, out, n); break;
        case 3: Tile<3>(row, w + j * k, k, out, n); break;
        case 4: Tile<4>(row, w + j * k, k, out, n); break;
        case 5: Tile<5>(row, w + j * k, k, out, n); break;
      }
    }
    for (; j < to; ++j)
      for (int64_t r = first; r < last; ++r) {
        float sum = 0;
        for (int64_t i = 0; i < k; ++i) sum += x[r * k + i] * w[j * k + i];
        y[r * n + j] = sum;
      }
  }
}

ffi::Error FloatMatmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> rows,
                       ffi::Buffer<ffi::F32> weights, ffi::ResultBuffer<ffi::F32> y) {
  const auto r = rows.dimensions(), w = weights.dimensions();
  if (r.size() != 2 || w.size() != 2 || r[1] != w[1] ||
      static_cast<int64_t>(y->element_count()) != r[0] * w[0])
    return ffi::Error::InvalidArgument("float_matmul: shapes do not fit");
  const int64_t m = r[0], k = r[1], n = w[0];
  const float *x = rows.typed_data(), *kernel = weights.typed_data();
  float* out = y->typed_data();
  int64_t width = std::max<int64_t>(kPartBytes / std::max<int64_t>(4 * k, 1), 16);
  width = std::min(width, (n + 2 * pool.num_threads() - 1) / (2 * pool.num_threads()));
  width = (width + 15) / 16 * 16;
  ForEachPart(pool, (n + width - 1) / width, [=](int64_t part) {
    Part(x, m, kernel, k, out, n, part * width, std::min(n, (part + 1) * width));
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_float_matmul, FloatMatmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace geex
