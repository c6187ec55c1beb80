// y = (x * weights^T) * scale, for `geex_jax.kernels.cpu`: the same integers as its plain way.
//
// x float [M, K], made of `limbs` int8 digits a number; weights int8 [N, K]; scale float [N];
// y float [M, N]. One limb is W8A8.
#include <memory>
#include <vector>

#include "activations.h"
#include "dots.h"
#include "threads.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace geex {

constexpr int64_t kPartBytes = 128 << 10;   // weights of one part, where rows are few
constexpr int64_t kSerialWork = 32 << 10;   // multiplications that are not worth a second thread
constexpr int64_t kMostRows = 512;          // a part's rows of limbs: its sums stay in the L2
#ifdef GEEX_VNNI
constexpr int64_t kFew = 8;  // rows of limbs up to which weights are not laid out anew
#else
constexpr int64_t kFew = 2;
#endif

struct Work {
  const float* x;
  int64_t limbs, m, k, n;
  const int8_t* weights;
  const float* scale;
  float* y;
  int64_t stride;                       // of a row of digits: k, up to a multiple of 64
  std::unique_ptr<float[]> row_scale;   // [m]
  std::unique_ptr<int32_t[]> starts;    // [limbs][m]
};

// Rows [from, to) of x into digits [limbs][m][stride].
template <typename Digit>
void QuantizeRows(const Work& work, int64_t from, int64_t to, Digit* digits) {
  for (int64_t i = from; i < to; ++i) {
    Digit* row = digits + i * work.stride;
    work.row_scale[i] = Quantize(work.x + i * work.k, work.k, work.stride, work.limbs, row,
                                 work.m * work.stride);
#ifdef GEEX_TILES
    for (int64_t l = 0; Lanes::kMoved && l < work.limbs; ++l) {
      const Digit* limb = row + l * work.m * work.stride;
      int32_t sum = 0;
      for (int64_t j = 0; j < work.k; ++j) sum += limb[j];
      work.starts[l * work.m + i] = -Lanes::kMoved * sum;
    }
#endif
  }
}

// y of rows [from, from + rows) and outputs [j, j + width) from sums [limbs][rows][stride].
void Finish(const Work& work, int64_t from, int64_t rows, int64_t j, int64_t width,
            const int32_t* sums, int64_t stride) {
  const float* __restrict scale = work.scale + j;
  for (int64_t i = 0; i < rows; ++i) {
    float* __restrict y = work.y + (from + i) * work.n + j;
    const int32_t* __restrict first = sums + i * stride;
    const float row = work.row_scale[from + i];
    if (work.limbs == 1) {
      for (int64_t o = 0; o < width; ++o) y[o] = static_cast<float>(first[o]) * scale[o] * row;
      continue;
    }
    for (int64_t o = 0; o < width; ++o) y[o] = static_cast<float>(first[o]);
    for (int64_t l = 1; l < work.limbs; ++l) {
      const int32_t* __restrict lower = first + l * rows * stride;
      for (int64_t o = 0; o < width; ++o) y[o] = y[o] * 256.0f + static_cast<float>(lower[o]);
    }
    for (int64_t o = 0; o < width; ++o) y[o] = y[o] * row * scale[o];
  }
}

// Quantizes all rows; they are shared among the threads if that is worth it.
template <typename Digit>
std::unique_ptr<Digit[]> Digits(ffi::ThreadPool& pool, const Work& work) {
  std::unique_ptr<Digit[]> digits(new Digit[work.limbs * work.m * work.stride]);
  const int64_t some = std::max<int64_t>(kSerialWork / work.stride, 1);
  ForEachPart(pool, (work.m + some - 1) / some, [&](int64_t part) {
    QuantizeRows(work, part * some, std::min(work.m, (part + 1) * some), digits.get());
  });
  return digits;
}

void FewRows(ffi::ThreadPool& pool, const Work& work) {
  const auto digits = Digits<int8_t>(pool, work);
  const int64_t count = work.limbs * work.m, n = work.n, k = work.k;
  int64_t size = n;
  if (count * n * k > kSerialWork) {
    const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
    size = std::max<int64_t>(kPartBytes / k, 16);
    size = std::min(size, (n + 2 * threads - 1) / (2 * threads));
    size = (size + 15) / 16 * 16;
  }
  ForEachPart(pool, (n + size - 1) / size, [&](int64_t part) {
    const int64_t from = part * size, width = std::min(n, from + size) - from;
    std::unique_ptr<int32_t[]> sums(new int32_t[count * width]);
    FewDots(digits.get(), count, work.stride, work.weights + from * k, width, k,
            work.starts.get(), sums.get(), width);
    Finish(work, 0, work.m, from, width, sums.get(), width);
  });
}

#ifdef GEEX_TILES

// Rows [from, from + rows) by the panels [first, last).
void Panels(const Work& work, const Lanes::Element* digits, int64_t from, int64_t rows,
            int64_t first, int64_t last) {
  const int64_t k = work.k, blocks = (k + kBlock - 1) / kBlock;
  const int64_t block = ((k + blocks - 1) / blocks + 63) / 64 * 64;
  std::unique_ptr<int32_t[]> sums(new int32_t[work.limbs * rows * kPanel]);
  alignas(64) Lanes::Element panel[kPanelElements];
  for (int64_t j = first * kPanel; j < std::min(work.n, last * kPanel); j += kPanel) {
    const int64_t width = std::min(kPanel, work.n - j);
    const int64_t vectors = (width + Lanes::kLanes - 1) / Lanes::kLanes;
    for (int64_t c = 0; c < k; c += block) {
      const int64_t columns = std::min(block, k - c);
      Pack(work.weights + j * k + c, width, k, columns, vectors, panel);
      for (int64_t l = 0; l < work.limbs; ++l) {
        const int64_t row = l * work.m + from;
        PanelDots(digits + row * work.stride + c, rows, work.stride, panel, vectors,
                  (columns + Lanes::kPer - 1) / Lanes::kPer, c > 0, work.starts.get() + row,
                  sums.get() + l * rows * kPanel, kPanel);
      }
    }
    Finish(work, from, rows, j, width, sums.get(), kPanel);
  }
}

// A part is some panels by some rows: at least four parts a thread, so that a slow one holds up
// nobody, but not so few rows that laying out the weights costs more than multiplying them.
void ManyRows(ffi::ThreadPool& pool, const Work& work) {
  const auto digits = Digits<Lanes::Element>(pool, work);
  const int64_t panels = (work.n + kPanel - 1) / kPanel;
  const int64_t wanted = 4 * std::max<int64_t>(pool.num_threads(), 1);
  int64_t rows = std::min(work.m, kMostRows / work.limbs);
  auto chunks = [&] { return (work.m + rows - 1) / rows; };
  while (panels * chunks() < wanted && rows * work.limbs > 96) rows = (rows + 1) / 2;
  const int64_t each = std::max<int64_t>(
      1, std::min(panels * chunks() / wanted, kPartBytes / (kPanel * std::min(work.k, kBlock))));
  const int64_t groups = (panels + each - 1) / each;
  const int64_t some = (work.m + chunks() - 1) / chunks();  // rows, evenly
  ForEachPart(pool, groups * chunks(), [&](int64_t part) {
    const int64_t group = part / chunks(), from = part % chunks() * some;
    Panels(work, digits.get(), from, std::min(some, work.m - from), group * each,
           std::min(panels, (group + 1) * each));
  });
}

#endif

ffi::Error Int8Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S8> weights,
                      ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y, int64_t limbs) {
  const auto r = x.dimensions(), w = weights.dimensions();
  if (r.size() != 2 || w.size() != 2 || r[1] != w[1] || limbs < 1 || limbs > kMostLimbs ||
      static_cast<int64_t>(scale.element_count()) != w[0] ||
      static_cast<int64_t>(y->element_count()) != r[0] * w[0])
    return ffi::Error::InvalidArgument("int8_matmul: shapes do not fit");
  const int64_t m = r[0], k = r[1], n = w[0];
  if (!m || !n) return ffi::Error::Success();
  const Work work{x.typed_data(),
                  limbs,
                  m,
                  k,
                  n,
                  weights.typed_data(),
                  scale.typed_data(),
                  y->typed_data(),
                  std::max<int64_t>((k + 63) / 64 * 64, 64),
                  std::make_unique<float[]>(m),
                  std::make_unique<int32_t[]>(limbs * m)};
#ifdef GEEX_TILES
  if (limbs * m > kFew && k) {
    ManyRows(pool, work);
    return ffi::Error::Success();
  }
#endif
  FewRows(pool, work);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_int8_matmul, Int8Matmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("limbs"));

}  // namespace geex
