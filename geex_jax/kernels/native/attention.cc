// Attention of new tokens over the flat cache, for `geex_jax.kernels.decode_attention`.
//
// query float [B, T, H, W]; key, value [blocks, R, S, K * W], float or int8 with float scales
// [blocks, R, S, K]; place int32 [3]: block, first row, window; slots int32 [B, T]; y float
// [B, T, H, W]. The cache is read where it lies, and of a row only what its queries see.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "floats.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace geex {
namespace {

struct Shape {
  int64_t length, heads, width;   // of queries: T, H, W
  int64_t rows, slots, kv_heads;  // of the cache: R, S, K
  int64_t block, row, window;     // what is read of it
};

template <typename T>
inline float Dot(const float* a, const T* b, int64_t width) {
  Floats sum = Floats::Fill(0);
  int64_t i = 0;
  for (; i + kFloats <= width; i += kFloats) sum.AddProduct(Floats::Load(a + i), Floats::Load(b + i));
  float all = sum.Sum();
  for (; i < width; ++i) all += a[i] * static_cast<float>(b[i]);
  return all;
}

template <typename T>
inline void AddScaled(float* y, const T* x, float scale, int64_t width) {
  const Floats by = Floats::Fill(scale);
  int64_t i = 0;
  for (; i + kFloats <= width; i += kFloats) {
    Floats sum = Floats::Load(y + i);
    sum.AddProduct(by, Floats::Load(x + i));
    sum.Store(y + i);
  }
  for (; i < width; ++i) y[i] += scale * static_cast<float>(x[i]);
}

// All queries of one row and one key head; scales are null, or begin where the row's do.
template <typename T>
void OneHead(const Shape& s, const float* query, const T* key, const T* value,
             const float* key_scale, const float* value_scale, const int32_t* slots, float* y) {
  const int64_t group = s.heads / s.kv_heads, flat = s.kv_heads * s.width;
  std::vector<float> probs(s.slots);
  const float root = 1.0f / std::sqrt(static_cast<float>(s.width));
  for (int64_t t = 0; t < s.length; ++t) {
    const int64_t end = std::min<int64_t>(slots[t] + 1, s.slots);
    const int64_t begin = std::max<int64_t>(0, slots[t] - s.window + 1);
    for (int64_t g = 0; g < group; ++g) {
      const float* q = query + (t * s.heads + g) * s.width;
      float* out = y + (t * s.heads + g) * s.width;
      std::fill(out, out + s.width, 0.0f);
      if (end <= begin) continue;
      float most = -INFINITY;
      for (int64_t i = begin; i < end; ++i) {
        float score = Dot(q, key + i * flat, s.width) * root;
        if (key_scale) score *= key_scale[i * s.kv_heads];
        probs[i] = score;
        most = std::max(most, score);
      }
      float total = 0;
      for (int64_t i = begin; i < end; ++i) {
        probs[i] = std::exp(probs[i] - most);
        total += probs[i];
      }
      const float share = 1.0f / total;
      for (int64_t i = begin; i < end; ++i) {
        float p = probs[i] * share;
        if (value_scale) p *= value_scale[i * s.kv_heads];
        AddScaled(out, value + i * flat, p, s.width);
      }
    }
  }
}

template <typename T>
void AllHeads(ffi::ThreadPool& pool, const Shape& s, int64_t batch, const float* query,
              const T* key, const T* value, const float* key_scale, const float* value_scale,
              const int32_t* slots, float* y) {
  const int64_t group = s.heads / s.kv_heads, flat = s.kv_heads * s.width;
  ForEachPart(pool, batch * s.kv_heads, [&](int64_t part) {
    const int64_t b = part / s.kv_heads, head = part % s.kv_heads;
    const int64_t line = (s.block * s.rows + s.row + b) * s.slots;
    const int64_t place = b * s.length * s.heads * s.width + head * group * s.width;
    const int64_t scale = line * s.kv_heads + head;
    OneHead(s, query + place, key + line * flat + head * s.width,
            value + line * flat + head * s.width, key_scale ? key_scale + scale : nullptr,
            value_scale ? value_scale + scale : nullptr, slots + b * s.length, y + place);
  });
}

ffi::Error DecodeAttention(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> query, ffi::AnyBuffer key,
                           ffi::AnyBuffer value, ffi::Buffer<ffi::S32> place,
                           ffi::Buffer<ffi::S32> slots, ffi::RemainingArgs scales,
                           ffi::ResultBuffer<ffi::F32> y) {
  const auto q = query.dimensions(), c = key.dimensions();
  if (q.size() != 4 || c.size() != 4 || q[3] == 0 || c[3] % q[3] || q[2] % (c[3] / q[3]) ||
      place.element_count() != 3 || static_cast<int64_t>(slots.element_count()) != q[0] * q[1])
    return ffi::Error::InvalidArgument("decode_attention: shapes do not fit");
  const int32_t* at = place.typed_data();
  const Shape shape{q[1], q[2], q[3], c[1], c[2], c[3] / q[3], at[0], at[1], at[2]};
  if (at[0] < 0 || at[0] >= c[0] || at[1] < 0 || at[1] + q[0] > c[1])
    return ffi::Error::InvalidArgument("decode_attention: no such block or row");
  const float* factors[2] = {nullptr, nullptr};
  for (size_t i = 0; i < 2 && i < scales.size(); ++i) {
    auto scale = scales.get<ffi::Buffer<ffi::F32>>(i);
    if (!scale) return scale.error();
    factors[i] = scale->typed_data();
  }
  const float* rows = query.typed_data();
  float* out = y->typed_data();
  const int32_t* seen = slots.typed_data();
  if (key.element_type() == ffi::F32) {
    AllHeads(pool, shape, q[0], rows, key.typed_data<float>(), value.typed_data<float>(),
             factors[0], factors[1], seen, out);
  } else if (key.element_type() == ffi::S8 && factors[1]) {
    AllHeads(pool, shape, q[0], rows, key.typed_data<int8_t>(), value.typed_data<int8_t>(),
             factors[0], factors[1], seen, out);
  } else {
    return ffi::Error::InvalidArgument("decode_attention: float32, or int8 with scales");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_decode_attention, DecodeAttention,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace geex
