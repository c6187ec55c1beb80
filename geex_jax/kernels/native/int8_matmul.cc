// y = (rows * weights^T) * scales, for `geex_jax.kernels.cpu`: the same integers as its plain way.
//
// rows int8 [count, M, K]: the limbs of M activation rows, the largest first; weights int8 [N, K];
// scale float [N]; row_scale float [M]; y float [M, N]. One limb is W8A8.
#include <memory>
#include <vector>

#include "dots.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace geex {

constexpr int64_t kMostRows = 192;  // rows at a time: theirs and four weight rows stay in the L2

struct Work {
  const int8_t* rows;
  int64_t limbs, m, k, n;
  const int8_t* weights;
  const float* scale;
  const float* row_scale;
  float* y;
};

// Weight rows [from, to).
void Part(const Work& work, int64_t from, int64_t to, const int32_t* offsets) {
  const int64_t count = work.limbs * work.m, k = work.k, width = to - from;
  std::unique_ptr<int32_t[]> sums(new int32_t[count * width]);
  alignas(64) int8_t scratch[kScratch];
  for (int64_t r = 0; r < count; r += kMostRows) {
    const int64_t some = std::min(kMostRows, count - r);
    Int8Dots(work.rows + r * k, some, work.weights + from * k, width, k, offsets + r,
             scratch, sums.get() + r * width, width);
  }
  for (int64_t i = 0; i < work.m; ++i) {
    float* y = work.y + i * work.n + from;
    const float row = work.row_scale[i];
    const int32_t* first = sums.get() + i * width;
    const int64_t limb = work.m * width;
    if (work.limbs == 1) {
      for (int64_t j = 0; j < width; ++j)
        y[j] = static_cast<float>(first[j]) * work.scale[from + j] * row;
      continue;
    }
    for (int64_t j = 0; j < width; ++j) {
      float sum = static_cast<float>(first[j]);
      for (int64_t l = 1; l < work.limbs; ++l)
        sum = sum * 256.0f + static_cast<float>(first[l * limb + j]);
      y[j] = sum * row * work.scale[from + j];
    }
  }
}

ffi::Error Int8Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> rows, ffi::Buffer<ffi::S8> weights,
                      ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> row_scale,
                      ffi::ResultBuffer<ffi::F32> y) {
  const auto r = rows.dimensions(), w = weights.dimensions();
  if (r.size() != 3 || w.size() != 2 || r[2] != w[1] ||
      static_cast<int64_t>(scale.element_count()) != w[0] ||
      static_cast<int64_t>(row_scale.element_count()) != r[1] ||
      static_cast<int64_t>(y->element_count()) != r[1] * w[0])
    return ffi::Error::InvalidArgument("int8_matmul: shapes do not fit");
  const Work work{rows.typed_data(),      r[0],
                  r[1],                   r[2],
                  w[0],                   weights.typed_data(),
                  scale.typed_data(),     row_scale.typed_data(),
                  y->typed_data()};
  std::vector<int32_t> offsets(work.limbs * work.m);
  for (size_t i = 0; i < offsets.size(); ++i) {
    int32_t sum = 0;
    const int8_t* row = work.rows + static_cast<int64_t>(i) * work.k;
    for (int64_t j = 0; j < work.k; ++j) sum += row[j];
    offsets[i] = 128 * sum;
  }
  ForEachPart(pool, work.n, work.k * (work.n > 0), [&](int64_t from, int64_t to) {
    Part(work, from, to, offsets.data());
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_int8_matmul, Int8Matmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace geex
