// y = (x * weights^T) * scale, for `geex_jax.kernels.cpu`: the same integers as its plain way.
//
// x float [M, K], made of `limbs` int8 digits a number (one is W8A8); weights int8 [N, K] or packed
// int4 uint8 [N, K/2]; scale float [N, G], of int4 one for each K/G columns; y float [M, N].
#include <memory>
#include <vector>

#include "activations.h"
#include "dots.h"
#include "threads.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace geex {

constexpr int64_t kPartBytes = 128 << 10;  // weights of one part
constexpr int64_t kSerialWork = 32 << 10;  // multiplications that are not worth a second thread
constexpr int64_t kMostRows = 512;         // a part's rows of limbs: its sums stay in the L2
#ifdef GEEX_VNNI
constexpr int64_t kFew = 8;  // rows of limbs up to which weights are not laid out anew
#else
constexpr int64_t kFew = 2;
#endif

// The same where sums by group have to be scaled lane by lane.
constexpr int64_t kFewByGroups = std::min<int64_t>(kFew, 3);

struct Work {
  const float* x;
  int64_t limbs, m, k, n, groups, group;
  const uint8_t* weights;
  int64_t row_bytes;
  const float* scale;
  float* y;
  int64_t stride;                          // of a row of digits: k, up to a multiple of 64
  std::unique_ptr<float[]> row_scale;      // [m]
  std::unique_ptr<int32_t[]> starts;       // [limbs][m][groups], -Moved * sum of digits
  std::unique_ptr<int32_t[]> lane_starts;  // the same by lanes, see `Few`; null without groups
};

// `starts` of row `i` of limb `l`, whose digits are at `row`.
template <int kBits, typename Digit>
void Starts(const Work& work, int64_t l, int64_t i, const Digit* row) {
  const int64_t first = (l * work.m + i) * work.groups;
  for (int64_t g = 0; g < work.groups; ++g) {
    const Digit* from = row + g * work.group;
    int32_t sum = 0;
    for (int64_t j = 0; j < work.group; ++j) sum += from[j];
    work.starts[first + g] = -Moved<kBits>() * sum;
    if (!work.lane_starts) continue;
    int32_t* lanes = work.lane_starts.get() + (first + g) * 16;
    for (int64_t j = 0; j < work.group; j += 4)  // groups are multiples of four
      lanes[j / 4 % 16] -= Moved<kBits>() * (from[j] + from[j + 1] + from[j + 2] + from[j + 3]);
  }
}

// Quantizes all rows into digits [limbs][m][stride]; threads share them if that is worth it.
template <int kBits, typename Digit>
std::unique_ptr<Digit[]> Digits(ffi::ThreadPool& pool, const Work& work) {
  std::unique_ptr<Digit[]> digits(new Digit[work.limbs * work.m * work.stride]);
  const int64_t some = std::max<int64_t>(kSerialWork / work.stride, 1), step = work.m * work.stride;
  ForEachPart(pool, (work.m + some - 1) / some, [&](int64_t part) {
    for (int64_t i = part * some; i < std::min(work.m, (part + 1) * some); ++i) {
      Digit* row = digits.get() + i * work.stride;
      work.row_scale[i] =
          Quantize(work.x + i * work.k, work.k, work.stride, work.limbs, row, step);
      if (Moved<kBits>())
        for (int64_t l = 0; l < work.limbs; ++l) Starts<kBits>(work, l, i, row + l * step);
    }
  });
  return digits;
}

inline float Scaled(int32_t sum, float scale) { return static_cast<float>(sum) * scale; }
inline float Scaled(float sum, float) { return sum; }  // its groups' scales are in it

// y of rows [from, from + rows) and outputs [j, j + width) from sums [limbs][rows][stride].
template <typename Sum>
void Finish(const Work& work, int64_t from, int64_t rows, int64_t j, int64_t width,
            const Sum* sums, int64_t stride) {
  const float* __restrict scale = work.scale + j;  // not read with groups
  for (int64_t i = 0; i < rows; ++i) {
    float* __restrict y = work.y + (from + i) * work.n + j;
    const Sum* __restrict first = sums + i * stride;
    const float row = work.row_scale[from + i];
    if (work.limbs == 1) {
      for (int64_t o = 0; o < width; ++o) y[o] = Scaled(first[o], scale[o]) * row;
      continue;
    }
    for (int64_t o = 0; o < width; ++o) y[o] = static_cast<float>(first[o]);
    for (int64_t l = 1; l < work.limbs; ++l) {
      const Sum* __restrict lower = first + l * rows * stride;
      for (int64_t o = 0; o < width; ++o) y[o] = y[o] * 256.0f + static_cast<float>(lower[o]);
    }
    for (int64_t o = 0; o < width; ++o)
      y[o] = work.groups > 1 ? y[o] * row : y[o] * row * scale[o];
  }
}

template <int kBits, typename Sum>
void FewRows(ffi::ThreadPool& pool, const Work& work) {
  const auto digits = Digits<kBits, int8_t>(pool, work);
  const Few few{digits.get(), work.limbs * work.m, work.stride, work.weights,
                work.row_bytes, work.n, work.k, work.groups, work.group, work.scale,
                work.starts.get(), work.lane_starts.get()};
  const int64_t n = work.n;
  int64_t size = n;
  if (few.count * n * work.k > kSerialWork) {
    const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
    size = std::max<int64_t>(kPartBytes / work.row_bytes, 16);
    size = std::min(size, (n + 2 * threads - 1) / (2 * threads));
    size = (size + 15) / 16 * 16;
  }
  ForEachPart(pool, (n + size - 1) / size, [&](int64_t part) {
    const int64_t from = part * size, width = std::min(n, from + size) - from;
    std::unique_ptr<Sum[]> sums(new Sum[few.count * width]);
    FewDots<kBits>(few, from, from + width, sums.get(), width);
    Finish(work, 0, work.m, from, width, sums.get(), width);
  });
}

#ifdef GEEX_TILES

// Sums of a panel's columns [c, c + columns) with rows [from, from + rows) of all limbs.
inline void AddUp(const Work& work, const Lanes::Element* digits, int64_t from, int64_t rows,
                  int64_t c, int64_t columns, const Lanes::Element* panel, int64_t vectors,
                  const float*, int32_t* sums) {
  for (int64_t l = 0; l < work.limbs; ++l) {
    const int64_t first = l * work.m + from;
    ForTiles(rows, vectors, [&](int64_t r, auto count, auto v) {
      RowsByOutputs<count, v>(digits + (first + r) * work.stride + c, work.stride, panel,
                              (columns + Lanes::kPer - 1) / Lanes::kPer, c > 0,
                              work.starts.get() + first + r, sums + (l * rows + r) * kPanel,
                              kPanel);
    });
  }
}

inline void AddUp(const Work& work, const Lanes::Element* digits, int64_t from, int64_t rows,
                  int64_t c, int64_t columns, const Lanes::Element* panel, int64_t vectors,
                  const float* scales, float* sums) {
  const int64_t groups = work.groups;
  for (int64_t l = 0; l < work.limbs; ++l) {
    const int64_t first = l * work.m + from;
    ForTiles(rows, vectors, [&](int64_t r, auto count, auto v) {
      RowsByGroups<count, v>(digits + (first + r) * work.stride + c, work.stride, panel,
                             columns / work.group, work.group / Lanes::kPer, scales, c > 0,
                             work.starts.get() + (first + r) * groups + c / work.group, groups,
                             sums + (l * rows + r) * kPanel, kPanel);
    });
  }
}

// Columns of a panel that are laid out at a time.
inline int64_t Columns(const Work& work) {
  if (work.groups > 1) return std::max<int64_t>(kBlock / work.group, 1) * work.group;
  const int64_t blocks = (work.k + kBlock - 1) / kBlock;
  return ((work.k + blocks - 1) / blocks + 63) / 64 * 64;
}

// Rows [from, from + rows) by the panels [first, last).
template <int kBits, typename Sum>
void Panels(const Work& work, const Lanes::Element* digits, int64_t from, int64_t rows,
            int64_t first, int64_t last) {
  const int64_t block = Columns(work), per_block = block / work.group;
  std::unique_ptr<Sum[]> sums(new Sum[work.limbs * rows * kPanel]);
  std::unique_ptr<Lanes::Element[]> panel(new Lanes::Element[kPanel * block]);
  std::unique_ptr<float[]> scales(new float[work.groups > 1 ? per_block * kPanel : 0]);
  for (int64_t j = first * kPanel; j < std::min(work.n, last * kPanel); j += kPanel) {
    const int64_t width = std::min(kPanel, work.n - j);
    int64_t vectors = (width + Lanes::kLanes - 1) / Lanes::kLanes;
    if (vectors == 3) vectors = 4;  // one kind of tile less
    for (int64_t c = 0; c < work.k; c += block) {
      const int64_t columns = std::min(block, work.k - c);
      Pack<kBits>(work.weights + j * work.row_bytes, width, work.row_bytes, c, columns, vectors,
                  panel.get());
      for (int64_t g = 0; work.groups > 1 && g < columns / work.group; ++g)
        for (int64_t o = 0; o < vectors * Lanes::kLanes; ++o)
          scales[g * vectors * Lanes::kLanes + o] =
              o < width ? work.scale[(j + o) * work.groups + c / work.group + g] : 0.0f;
      AddUp(work, digits, from, rows, c, columns, panel.get(), vectors, scales.get(), sums.get());
    }
    Finish(work, from, rows, j, width, sums.get(), kPanel);
  }
}

// A part is some panels by some rows: at least four parts a thread, so that a slow one holds up
// nobody, but not so few rows that laying out the weights costs more than multiplying them.
template <int kBits, typename Sum>
void ManyRows(ffi::ThreadPool& pool, const Work& work) {
  const auto digits = Digits<kBits, Lanes::Element>(pool, work);
  const int64_t panels = (work.n + kPanel - 1) / kPanel;
  const int64_t wanted = 4 * std::max<int64_t>(pool.num_threads(), 1);
  int64_t most = std::min(work.m, kMostRows / work.limbs);
  while (panels * ((work.m + most - 1) / most) < wanted && most * work.limbs > 96)
    most = (most + 1) / 2;
  const int64_t chunks = (work.m + most - 1) / most, rows = (work.m + chunks - 1) / chunks;
  const int64_t each = std::max<int64_t>(
      1, std::min(panels * chunks / wanted, kPartBytes / (kPanel * work.row_bytes)));
  ForEachPart(pool, (panels + each - 1) / each * chunks, [&](int64_t part) {
    const int64_t first = part / chunks * each, from = part % chunks * rows;
    Panels<kBits, Sum>(work, digits.get(), from, std::min(rows, work.m - from), first,
                       std::min(panels, first + each));
  });
}

#endif

template <int kBits, typename Sum>
void Multiply(ffi::ThreadPool& pool, const Work& work) {
#ifdef GEEX_TILES
  if (work.limbs * work.m > (work.groups > 1 ? kFewByGroups : kFew))
    return ManyRows<kBits, Sum>(pool, work);
#endif
  FewRows<kBits, Sum>(pool, work);
}

template <int kBits, ffi::DataType kType>
ffi::Error Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32>& x, ffi::Buffer<kType>& weights,
                  ffi::Buffer<ffi::F32>& scale, ffi::ResultBuffer<ffi::F32>& y, int64_t limbs) {
  const auto r = x.dimensions(), w = weights.dimensions(), s = scale.dimensions();
  if (r.size() != 2 || w.size() != 2 || s.size() != 2 || r[1] * kBits != w[1] * 8 || s[1] < 1 ||
      s[0] != w[0] || r[1] % s[1] || limbs < 1 || limbs > kMostLimbs ||
      (s[1] > 1 && (kBits == 8 || r[1] / s[1] % 4)) ||
      static_cast<int64_t>(y->element_count()) != r[0] * w[0])
    return ffi::Error::InvalidArgument("quantized_matmul: shapes do not fit");
  const int64_t m = r[0], k = r[1], n = w[0], groups = s[1];
  if (!m || !n) return ffi::Error::Success();
  if (!k) {
    std::fill(y->typed_data(), y->typed_data() + m * n, 0.0f);
    return ffi::Error::Success();
  }
  Work work{x.typed_data(), limbs, m, k, n, groups, k / groups,
            reinterpret_cast<const uint8_t*>(weights.typed_data()), w[1], scale.typed_data(),
            y->typed_data(), (k + 63) / 64 * 64, std::make_unique<float[]>(m),
            std::make_unique<int32_t[]>(limbs * m * groups), nullptr};
  if (groups == 1) {
    Multiply<kBits, int32_t>(pool, work);
    return ffi::Error::Success();
  }
  if constexpr (kBits == 4) {
    if (Moved<kBits>() && limbs * m <= kFewByGroups)
      work.lane_starts = std::make_unique<int32_t[]>(limbs * m * groups * 16);
    Multiply<kBits, float>(pool, work);
  }
  return ffi::Error::Success();
}

ffi::Error Int8Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S8> weights,
                      ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y, int64_t limbs) {
  return Matmul<8>(pool, x, weights, scale, y, limbs);
}

ffi::Error Int4Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::U8> weights,
                      ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y, int64_t limbs) {
  return Matmul<4>(pool, x, weights, scale, y, limbs);
}

template <ffi::DataType kWeights>
auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .template Arg<ffi::Buffer<kWeights>>()
      .template Arg<ffi::Buffer<ffi::F32>>()
      .template Ret<ffi::Buffer<ffi::F32>>()
      .template Attr<int64_t>("limbs");
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_int8_matmul, Int8Matmul, Binding<ffi::S8>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(geex_int4_matmul, Int4Matmul, Binding<ffi::U8>());

}  // namespace geex
