// Dot products of few int8 rows, where the weights' way from memory is what takes the time:
// sums[r][n] = sum over k of rows[r][k] * weights[n][k].
//
// Weights are out-major: row n holds its K integers one after the other, int8 or packed int4. They
// are read once and as they lie. One way for AVX512-VNNI, one in plain C++ for all else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace geex {

// Activation rows [count][stride] (a multiple of 64, zeros beyond k) and weight rows [n] of
// row_bytes, whose columns have a scale for each of `groups` of `group` columns. What is taken off
// for moved weights: starts [count][groups], and by lanes, where there are groups,
// lane_starts [count][groups][16].
struct Few {
  const int8_t* rows;
  int64_t count, stride;
  const uint8_t* weights;
  int64_t row_bytes, n, k, groups, group;
  const float* scale;  // [n][groups]
  const int32_t* starts;
  const int32_t* lane_starts;
};

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

inline __m128 Across(__m512 a, __m512 b, __m512 c, __m512 d) {
  auto half = [](__m512 v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  };
  __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// R activation rows by 4 weight rows: adds columns [from, to) up in acc.
template <int kBits, int R>
inline void Step(const Few& f, int64_t r0, int64_t n0, int64_t from, int64_t to,
                 __m512i (&acc)[R][4]) {
  const uint8_t* weights = f.weights + n0 * f.row_bytes;
  auto step = [&](int64_t i, int64_t some) {
    __m512i w[4];
    GEEX_UNROLL
    for (int n = 0; n < 4; ++n) {
      const uint8_t* row = weights + n * f.row_bytes;
      w[n] = LoadMoved<kBits>(row, i, some);
      // Rows are short for the hardware's prefetcher, which begins anew with every page.
      _mm_prefetch(reinterpret_cast<const char*>(row + 4 * f.row_bytes + i * kBits / 8),
                   _MM_HINT_T0);
    }
    GEEX_UNROLL
    for (int r = 0; r < R; ++r) {
      // Weights beyond a group's end are moved zeros: what they meet must be zeros.
      const int8_t* p = f.rows + (r0 + r) * f.stride + i;
      const __m512i x = some >= 64 ? _mm512_loadu_si512(p)
                                   : _mm512_maskz_loadu_epi8((1ull << some) - 1, p);
      GEEX_UNROLL
      for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_dpbusd_epi32(acc[r][n], w[n], x);
    }
  };
  int64_t i = from;
  for (; i + 64 <= to; i += 64) step(i, 64);
  if (i < to) step(i, to - i);
}

template <int kBits, int R>
void Tile(const Few& f, int64_t r0, int64_t n0, int32_t* sums, int64_t sum_stride) {
  __m512i acc[R][4];
  GEEX_UNROLL
  for (int r = 0; r < R; ++r)
    GEEX_UNROLL
    for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_setzero_si512();
  Step<kBits, R>(f, r0, n0, 0, f.k, acc);
  GEEX_UNROLL
  for (int r = 0; r < R; ++r) {
    const __m128i s = Across(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + (r0 + r) * sum_stride + n0),
                     _mm_add_epi32(s, _mm_set1_epi32(f.starts[r0 + r])));
  }
}

template <int kBits, int R>
void Tile(const Few& f, int64_t r0, int64_t n0, float* sums, int64_t sum_stride) {
  __m512 total[R][4];
  GEEX_UNROLL
  for (int r = 0; r < R; ++r)
    GEEX_UNROLL
    for (int n = 0; n < 4; ++n) total[r][n] = _mm512_setzero_ps();
  for (int64_t g = 0; g < f.groups; ++g) {
    __m512i acc[R][4];
    GEEX_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512i start =
          _mm512_loadu_si512(f.lane_starts + ((r0 + r) * f.groups + g) * Lanes::kLanes);
      GEEX_UNROLL
      for (int n = 0; n < 4; ++n) acc[r][n] = start;
    }
    Step<kBits, R>(f, r0, n0, g * f.group, (g + 1) * f.group, acc);
    GEEX_UNROLL
    for (int n = 0; n < 4; ++n) {
      const __m512 scale = _mm512_set1_ps(f.scale[(n0 + n) * f.groups + g]);
      GEEX_UNROLL
      for (int r = 0; r < R; ++r)
        total[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][n]), scale, total[r][n]);
    }
  }
  GEEX_UNROLL
  for (int r = 0; r < R; ++r)
    _mm_storeu_ps(sums + (r0 + r) * sum_stride + n0,
                  Across(total[r][0], total[r][1], total[r][2], total[r][3]));
}

#endif  // GEEX_VNNI

inline int32_t PlainDot(const int8_t* a, const int8_t* b, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<int32_t>(a[i]) * static_cast<int32_t>(b[i]);
  return sum;
}

inline void PlainSum(const Few& f, int64_t r, const int8_t* w, int64_t, int32_t* sum) {
  *sum = PlainDot(f.rows + r * f.stride, w, f.k);
}

inline void PlainSum(const Few& f, int64_t r, const int8_t* w, int64_t n, float* sum) {
  *sum = 0;
  for (int64_t g = 0; g < f.groups; ++g) {
    const int64_t c = g * f.group;
    *sum += static_cast<float>(PlainDot(f.rows + r * f.stride + c, w + c, f.group)) *
            f.scale[n * f.groups + g];
  }
}

// Weight rows [from, to) into sums [count][sum_stride], the first output at `sums`: exact int32, or
// float, in which each group's exact sum was multiplied by its scale.
template <int kBits, typename Sum>
void FewDots(const Few& f, int64_t from, int64_t to, Sum* sums, int64_t sum_stride) {
  int64_t j = from;
  Sum* out = sums - from;
#ifdef GEEX_VNNI
  constexpr int64_t kMost = std::is_same<Sum, float>::value ? 3 : 4;  // by the registers
  for (; j + 4 <= to; j += 4)
    for (int64_t r = 0; r < f.count;) {
      const int64_t rows = std::min(f.count - r, kMost);
      if (rows == 1) Tile<kBits, 1>(f, r, j, out, sum_stride);
      if (rows == 2) Tile<kBits, 2>(f, r, j, out, sum_stride);
      if (rows == 3) Tile<kBits, 3>(f, r, j, out, sum_stride);
      if (rows == 4) Tile<kBits, 4>(f, r, j, out, sum_stride);
      r += rows;
    }
#endif
  std::vector<int8_t> unpacked(kBits == 8 ? 0 : f.k);
  for (; j < to; ++j) {
    const uint8_t* row = f.weights + j * f.row_bytes;
    const int8_t* w = reinterpret_cast<const int8_t*>(row);
    if (kBits == 4) {
      for (int64_t i = 0; i < f.k / 2; ++i) {
        unpacked[2 * i] = static_cast<int8_t>(WeightAt<4>(row, 2 * i));
        unpacked[2 * i + 1] = static_cast<int8_t>(WeightAt<4>(row, 2 * i + 1));
      }
      w = unpacked.data();
    }
    for (int64_t r = 0; r < f.count; ++r) PlainSum(f, r, w, j, out + r * sum_stride + j);
  }
}

}  // namespace geex
