// What the tiles of `tiles.h` are made of on this CPU: vectors of int32 sums, one output a lane.
//
// A step multiplies kPer bytes of each output's weights with the same kPer of one activation row,
// 32 bits a lane. VNNI takes four int8 products in one instruction, unsigned by signed: weights are
// moved up by 128 (int4: by 8), and 128 * sum(row) is taken off again. AVX2 takes two int16 products; its own
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

// Sums stay in registers only if their loops are unrolled before all else.
#define GEEX_UNROLL _Pragma("GCC unroll 8")

#ifdef GEEX_TILES
#include <immintrin.h>

namespace geex {

#if defined(GEEX_VNNI)

struct Lanes {
  using Vector = __m512i;
  using Element = int8_t;
  static constexpr int kLanes = 16, kPer = 4, kRows = 6, kVectors = 4;
  static constexpr bool kMoves = true;
  static Vector Load(const void* p) { return _mm512_loadu_si512(p); }
  static void Store(void* p, Vector v) { _mm512_storeu_si512(p, v); }
  static Vector Fill(int32_t x) { return _mm512_set1_epi32(x); }
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm512_dpbusd_epi32(sums, weights, x);
  }
  // to[lane] = (add ? to[lane] : 0) + sums[lane] * scale[lane]
  static void AddScaled(Vector sums, const float* scale, bool add, float* to) {
    const __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scale));
    _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), y) : y);
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
  static void AddScaled(Vector sums, const float* scale, bool add, float* to) {
    const __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(scale));
    _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), y) : y);
  }
#ifdef __AVXVNNI__
  using Element = int8_t;
  static constexpr int kPer = 4;
  static constexpr bool kMoves = true;
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm256_dpbusd_avx_epi32(sums, weights, x);
  }
#else
  using Element = int16_t;
  static constexpr int kPer = 2;
  static constexpr bool kMoves = false;
  static Vector Dot(Vector sums, Vector weights, Vector x) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(weights, x));
  }
#endif
};

#endif

}  // namespace geex

#endif  // GEEX_TILES

namespace geex {

// What is added to weights of so many bits.
template <int kBits>
constexpr int32_t Moved() {
#ifdef GEEX_TILES
  return Lanes::kMoves ? 1 << (kBits - 1) : 0;
#else
  return 0;
#endif
}

// Column i of a row of int8 or packed int4, the even column in the high nibble.
template <int kBits>
inline int32_t WeightAt(const uint8_t* row, int64_t i) {
  if (kBits == 8) return static_cast<int8_t>(row[i]);
  const int32_t nibble = i % 2 ? row[i / 2] & 15 : row[i / 2] >> 4;
  return (nibble ^ 8) - 8;
}

#ifdef GEEX_VNNI

// `some` columns (64, or less at the end of a row) from column i on of a row of int8 or packed
// int4, moved up to unsigned bytes; beyond them anything.
template <int kBits>
inline __m512i LoadMoved(const uint8_t* row, int64_t i, int64_t some) {
  if (kBits == 8) {
    const __m512i up = _mm512_set1_epi8(static_cast<char>(0x80));
    if (some >= 64) return _mm512_xor_si512(_mm512_loadu_si512(row + i), up);
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8((1ull << some) - 1, row + i), up);
  }
  const uint8_t* from = row + i / 2;
  const __m256i bytes =
      some >= 64 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
                 : _mm256_maskz_loadu_epi8(static_cast<__mmask32>((1ull << some / 2) - 1), from);
  const __m512i wide = _mm512_cvtepu8_epi16(bytes);
  const __m512i nibbles =  // (a | b) & c
      _mm512_ternarylogic_epi32(_mm512_srli_epi16(wide, 4), _mm512_slli_epi16(wide, 8),
                                _mm512_set1_epi8(0x0f), 0xa8);
  return _mm512_xor_si512(nibbles, _mm512_set1_epi8(8));
}

#endif

}  // namespace geex
