// Float rows made of integers, as `geex_jax.kernels` makes them: `int8_matmul.quantize` for one
// limb, `cpu.limbs` for more. The same integers and scales to the bit.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

namespace geex {

constexpr int64_t kMostLimbs = 3;

// The largest integer that `limbs` signed digits of base 256 hold.
inline int32_t Largest(int64_t limbs) {
  int32_t largest = 127;
  for (int64_t i = 1; i < limbs; ++i) largest = largest * 256 + 127;
  return largest;
}

// The largest magnitude, or NaN. As integers: floats order alike, and compilers need no leave to
// reorder them.
inline float Peak(const float* x, int64_t k) {
  int32_t peak = 0;
  for (int64_t i = 0; i < k; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    peak = bits > peak ? bits : peak;
  }
  float result;
  std::memcpy(&result, &peak, 4);
  return result;
}

// XLA divides by a constant through its reciprocal, as it does by a row's one number below, and
// takes numbers below FLT_MIN for 0.
inline float ScaleOf(float peak, int64_t limbs) {
  const float scale = peak * (1.0f / static_cast<float>(Largest(limbs)));
  if (!(scale < FLT_MIN)) return scale;
  return limbs == 1 ? 1.0f : FLT_MIN;
}

// One row x [k] into digits [limbs][limb_stride], the largest first, zeros in [k, stride).
// Returns the row's scale.
template <typename Digit>
float Quantize(const float* __restrict x, int64_t k, int64_t stride, int64_t limbs,
               Digit* __restrict digits, int64_t limb_stride) {
  constexpr int64_t kSome = 256;
  const float scale = ScaleOf(Peak(x, k), limbs);
  const float inverse = 1.0f / scale;
  const float largest = static_cast<float>(Largest(limbs));
  int32_t rest[kSome];
  for (int64_t c = 0; c < k; c += kSome) {
    const int64_t some = std::min(kSome, k - c);
    for (int64_t i = 0; i < some; ++i) {
      float v = std::rint(x[c + i] * inverse);  // half to even
      v = v == v ? v : 0.0f;
      v = v > largest ? largest : v;
      v = v < -largest ? -largest : v;
      rest[i] = static_cast<int32_t>(v);
    }
    for (int64_t l = limbs - 1; l > 0; --l) {
      Digit* to = digits + l * limb_stride + c;
      for (int64_t i = 0; i < some; ++i) {
        const int32_t digit = ((rest[i] + 128) & 255) - 128;
        to[i] = static_cast<Digit>(digit);
        rest[i] = (rest[i] - digit) >> 8;
      }
    }
    for (int64_t i = 0; i < some; ++i) digits[c + i] = static_cast<Digit>(rest[i]);
  }
  for (int64_t l = 0; l < limbs; ++l)
    std::fill(digits + l * limb_stride + k, digits + l * limb_stride + stride, Digit{0});
  return scale;
}

}  // namespace geex
