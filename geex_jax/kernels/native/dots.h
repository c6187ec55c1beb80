// Exact dot products of int8 rows: sums[r][n] = sum over k of rows[r][k] * weights[n][k], in int32.
//
// Weights are out-major: row n holds its K integers one after the other. One way for AVX512-VNNI,
// one in plain C++ for all else.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define GEEX_VNNI 1
#include <immintrin.h>
#endif

namespace geex {

constexpr int64_t kGroup = 8;       // weight rows that stay in the L1 while all others pass by
constexpr int64_t kColumns = 1024;  // of them at a time
constexpr int64_t kFew = 8;        // up to here weights are read once, from memory
constexpr int64_t kScratch = kGroup * kColumns;  // bytes

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

// R activation rows by 4 weight rows. VNNI multiplies unsigned by signed bytes: weights are moved
// up by 128 (with kMoved they already are), and offsets[r] = 128 * sum(row r) is taken off, unless
// the result is added to sums that are there (kAdd).
template <int R, bool kMoved, bool kAdd>
inline void Tile(const int8_t* rows, int64_t row_stride, const int8_t* weights,
                 int64_t weight_stride, int64_t k, const int32_t* offsets, int32_t* sums,
                 int64_t sum_stride) {
  const __m512i up = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i acc[R][4];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_setzero_si512();
  auto step = [&](int64_t i, auto load) {
    __m512i w[4];
    for (int n = 0; n < 4; ++n) {
      const int8_t* p = weights + n * weight_stride + i;
      w[n] = load(p);
      if (!kMoved) {
        // Rows are short for the hardware's prefetcher, which begins anew with every page.
        _mm_prefetch(reinterpret_cast<const char*>(p + 4 * weight_stride), _MM_HINT_T0);
        w[n] = _mm512_xor_si512(w[n], up);
      }
    }
    for (int r = 0; r < R; ++r) {
      const __m512i x = load(rows + r * row_stride + i);
      for (int n = 0; n < 4; ++n) acc[r][n] = _mm512_dpbusd_epi32(acc[r][n], w[n], x);
    }
  };
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) step(i, [](const int8_t* p) { return _mm512_loadu_si512(p); });
  if (i < k) {  // beyond the end the activations are zeros
    const __mmask64 mask = (1ull << (k - i)) - 1;
    step(i, [mask](const int8_t* p) { return _mm512_maskz_loadu_epi8(mask, p); });
  }
  for (int r = 0; r < R; ++r) {
    __m128i s = Across(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    __m128i* out = reinterpret_cast<__m128i*>(sums + r * sum_stride);
    s = kAdd ? _mm_add_epi32(s, _mm_loadu_si128(out))
             : _mm_sub_epi32(s, _mm_set1_epi32(offsets[r]));
    _mm_storeu_si128(out, s);
  }
}

template <bool kMoved, bool kAdd>
inline void Tiles(int64_t r, const int8_t* x, int64_t row_stride, const int8_t* w,
                  int64_t weight_stride, int64_t k, const int32_t* offsets, int32_t* out,
                  int64_t sum_stride) {
  switch (r) {
#define GEEX_CASE(R)                                                                             \
  case R:                                                                                        \
    Tile<R, kMoved, kAdd>(x, row_stride, w, weight_stride, k, offsets, out, sum_stride);         \
    break;
    GEEX_CASE(1)
    GEEX_CASE(2)
    GEEX_CASE(3)
    GEEX_CASE(4)
#undef GEEX_CASE
  }
}

inline int64_t TileRows(int64_t left) { return std::min<int64_t>(left, 4); }  // 5 or 6 spill

#endif  // GEEX_VNNI

inline int32_t PlainDot(const int8_t* a, const int8_t* b, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<int32_t>(a[i]) * static_cast<int32_t>(b[i]);
  return sum;
}

// Weight rows [0, n) of int8 [n, k] by rows int8 [count, k], into sums [count][sum_stride].
// `offsets` [count] is 128 * sum(row); `scratch` holds kScratch bytes.
inline void Int8Dots(const int8_t* rows, int64_t count, const int8_t* weights, int64_t n, int64_t k,
                     const int32_t* offsets, int8_t* scratch, int32_t* sums, int64_t sum_stride) {
  int64_t j = 0;
#ifdef GEEX_VNNI
  if (count > kFew) {
    const __m512i up = _mm512_set1_epi8(static_cast<char>(0x80));
    for (; j + kGroup <= n; j += kGroup) {
      for (int64_t c = 0; c < k; c += kColumns) {
        const int64_t some = std::min(kColumns, k - c);
        for (int64_t g = 0; g < kGroup; ++g) {
          const int8_t* from = weights + (j + g) * k + c;
          int8_t* to = scratch + g * kColumns;
          int64_t i = 0;
          for (; i + 64 <= some; i += 64)
            _mm512_store_si512(to + i, _mm512_xor_si512(_mm512_loadu_si512(from + i), up));
          for (; i < some; ++i) to[i] = static_cast<int8_t>(from[i] ^ 0x80);
        }
        for (int64_t r = 0, t; r < count; r += t) {
          t = TileRows(count - r);
          for (int64_t g = 0; g < kGroup; g += 4) {
            const int8_t* x = rows + r * k + c;
            const int8_t* w = scratch + g * kColumns;
            int32_t* out = sums + r * sum_stride + j + g;
            if (c)
              Tiles<true, true>(t, x, k, w, kColumns, some, nullptr, out, sum_stride);
            else
              Tiles<true, false>(t, x, k, w, kColumns, some, offsets + r, out, sum_stride);
          }
        }
      }
    }
  }
  for (; j + 4 <= n; j += 4)
    for (int64_t r = 0, t; r < count; r += t) {
      t = TileRows(count - r);
      Tiles<false, false>(t, rows + r * k, k, weights + j * k, k, k, offsets + r,
                          sums + r * sum_stride + j, sum_stride);
    }
#else
  (void)offsets;
  (void)scratch;
#endif
  for (; j < n; ++j)
    for (int64_t r = 0; r < count; ++r)
      sums[r * sum_stride + j] = PlainDot(rows + r * k, weights + j * k, k);
}

}  // namespace geex
