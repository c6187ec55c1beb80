// What the tiles of `tiles.h` are made of on this CPU: vectors of int32 sums, one output a lane.
//
// A step multiplies kPer bytes of each output's weights with the same kPer of one activation row,
// 32 bits a lane. VNNI takes four int8 products in one instruction, unsigned by signed: weights are
// moved up by 128, and 128 * sum(row) is taken off again. AVX2 takes two int16 products; its own
// int8 instruction saturates.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define GEEX_VNNI 1
#define GEEX_TILES 1
#elif defined(__AVX2__)
#define GEEX_TILES 1
#endif

#ifdef GEEX_TILES
#include <immintrin.h>

namespace geex {

#if defined(GEEX_VNNI)

struct Lanes {
  using Vector = __m512i;
  using Element = int8_t;
  static constexpr int kLanes = 16, kPer = 4, kRows = 6, kVectors = 4;
  static constexpr int32_t kMoved = 128;
  static Vector Load(const void* p) { return _mm512_loadu_si512(p); }
  static void Store(void* p, Vector v) { _mm512_storeu_si512(p, v); }
  static Vector Fill(int32_t x) { return _mm512_set1_epi32(x); }
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm512_dpbusd_epi32(sums, weights, x);
  }
};

#else

struct Lanes {
  using Vector = __m256i;
  static constexpr int kLanes = 8, kRows = 6, kVectors = 2;
  static Vector Load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static void Store(void* p, Vector v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  static Vector Fill(int32_t x) { return _mm256_set1_epi32(x); }
#ifdef __AVXVNNI__
  using Element = int8_t;
  static constexpr int kPer = 4;
  static constexpr int32_t kMoved = 128;
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm256_dpbusd_avx_epi32(sums, weights, x);
  }
#else
  using Element = int16_t;
  static constexpr int kPer = 2;
  static constexpr int32_t kMoved = 0;
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(weights, x));
  }
#endif
};

#endif

}  // namespace geex

#endif  // GEEX_TILES
