// Exact dot products of few int8 rows, where the weights' way from memory is what takes the time:
// sums[r][n] = sum over k of rows[r][k] * weights[n][k], in int32.
//
// Weights are out-major: row n holds its K integers one after the other. They are read once and as
// they lie. One way for AVX512-VNNI, one in plain C++ for all else.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lanes.h"

namespace geex {

#ifdef GEEX_VNNI

// The sums of the 16 lanes of four vectors.
inline __m128i Across(__m512i a, __m512i b, __m512i c, __m512i d) {
  auto half = [](__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  };
  __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(half(a), half(b)),
                                _mm256_hadd_epi32(half(c), half(d)));
  return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

// R activation rows, zeros beyond their end, by 4 weight rows.
template <int R>
inline void Tile(const int8_t* rows, int64_t row_stride, const int8_t* weights, int64_t k,
                 const int32_t* starts, int32_t* sums, int64_t sum_stride) {
  const __m512i up = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i acc[R][4];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_setzero_si512();
  auto step = [&](int64_t i, auto load) {
    __m512i w[4];
    for (int n = 0; n < 4; ++n) {
      const int8_t* p = weights + n * k + i;
      w[n] = _mm512_xor_si512(load(p), up);
      // Rows are short for the hardware's prefetcher, which begins anew with every page.
      _mm_prefetch(reinterpret_cast<const char*>(p + 4 * k), _MM_HINT_T0);
    }
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_loadu_si512(rows + r * row_stride + i);
      for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_dpbusd_epi32(acc[r][n], w[n], x);
    }
  };
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) step(i, [](const int8_t* p) { return _mm512_loadu_si512(p); });
  if (i < k) {
    const __mmask64 mask = (1ull << (k - i)) - 1;
    step(i, [mask](const int8_t* p) { return _mm512_maskz_loadu_epi8(mask, p); });
  }
  for (int r = 0; r < R; ++r) {
    const __m128i s = Across(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + r * sum_stride),
                     _mm_add_epi32(s, _mm_set1_epi32(starts[r])));
  }
}

inline void Tiles(int64_t r, const int8_t* x, int64_t row_stride, const int8_t* w, int64_t k,
                  const int32_t* starts, int32_t* out, int64_t sum_stride) {
  if (r == 1) Tile<1>(x, row_stride, w, k, starts, out, sum_stride);
  if (r == 2) Tile<2>(x, row_stride, w, k, starts, out, sum_stride);
  if (r == 3) Tile<3>(x, row_stride, w, k, starts, out, sum_stride);
  if (r == 4) Tile<4>(x, row_stride, w, k, starts, out, sum_stride);
}

#endif  // GEEX_VNNI

inline int32_t PlainDot(const int8_t* a, const int8_t* b, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<int32_t>(a[i]) * static_cast<int32_t>(b[i]);
  return sum;
}

// Weight rows [0, n) of int8 [n, k] by rows int8 [count][row_stride] (a multiple of 64, zeros
// beyond k), into sums [count][sum_stride]. `starts` [count]: -Lanes::kMoved * sum(row).
inline void FewDots(const int8_t* rows, int64_t count, int64_t row_stride, const int8_t* weights,
                    int64_t n, int64_t k, const int32_t* starts, int32_t* sums,
                    int64_t sum_stride) {
  int64_t j = 0;
#ifdef GEEX_VNNI
  for (; j + 4 <= n; j += 4)
    for (int64_t r = 0, t; r < count; r += t) {
      t = std::min<int64_t>(count - r, 4);
      Tiles(t, rows + r * row_stride, row_stride, weights + j * k, k, starts + r,
            sums + r * sum_stride + j, sum_stride);
    }
#else
  (void)starts;
#endif
  for (; j < n; ++j)
    for (int64_t r = 0; r < count; ++r)
      sums[r * sum_stride + j] = PlainDot(rows + r * row_stride, weights + j * k, k);
}

}  // namespace geex
