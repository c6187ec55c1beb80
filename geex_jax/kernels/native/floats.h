// Sixteen floats at a time: one register of AVX-512, two of AVX2, four of NEON or SSE.
//
// GCC's and clang's own vectors, so that every CPU has them; products are added without rounding
// in between where the CPU can (the build's -ffp-contract=off would forbid it otherwise).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

namespace geex {

constexpr int kFloats = 16;

#if defined(__AVX512F__)
struct Floats {
  __m512 v;
  static Floats Fill(float x) { return {_mm512_set1_ps(x)}; }
  static Floats Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Floats Load(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  void AddProduct(Floats a, Floats b) { v = _mm512_fmadd_ps(a.v, b.v, v); }
  void Scale(float x) { v = _mm512_mul_ps(v, _mm512_set1_ps(x)); }
  float Sum() const { return _mm512_reduce_add_ps(v); }
};
#elif defined(__AVX2__) && defined(__FMA__)
struct Floats {
  __m256 a, b;
  static Floats Fill(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Floats Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Floats Load(const int8_t* p) {
    auto half = [](const int8_t* q) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q));
      return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    };
    return {half(p), half(p + 8)};
  }
  void Store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  void AddProduct(Floats x, Floats y) {
    a = _mm256_fmadd_ps(x.a, y.a, a);
    b = _mm256_fmadd_ps(x.b, y.b, b);
  }
  void Scale(float x) {
    a = _mm256_mul_ps(a, _mm256_set1_ps(x));
    b = _mm256_mul_ps(b, _mm256_set1_ps(x));
  }
  float Sum() const {
    const __m256 s = _mm256_add_ps(a, b);
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_hadd_ps(h, h);
    return _mm_cvtss_f32(_mm_hadd_ps(h, h));
  }
};
#else
struct Floats {
  float v[kFloats];
  static Floats Fill(float x) {
    Floats f;
    for (float& lane : f.v) lane = x;
    return f;
  }
  template <typename T>
  static Floats Load(const T* p) {
    Floats f;
    for (int i = 0; i < kFloats; ++i) f.v[i] = static_cast<float>(p[i]);
    return f;
  }
  void Store(float* p) const { std::memcpy(p, v, sizeof v); }
  void AddProduct(Floats a, Floats b) {
    for (int i = 0; i < kFloats; ++i) v[i] += a.v[i] * b.v[i];
  }
  void Scale(float x) {
    for (float& lane : v) lane *= x;
  }
  float Sum() const {
    float sum = 0;
    for (float lane : v) sum += lane;
    return sum;
  }
};
#endif

}  // namespace geex
