// Dot products of many int8 rows: tiles of rows x outputs that stay in registers.
//
// The weights of a panel (kPanel outputs) are laid out anew, kBlock columns at a time, so that one
// load gives kPer columns of kLanes outputs; all rows then pass by while they are in the L1.
#pragma once

#include "lanes.h"

#ifdef GEEX_TILES

#include <algorithm>
#include <type_traits>

namespace geex {

constexpr int64_t kPanel = Lanes::kLanes * Lanes::kVectors;
constexpr int64_t kBlock = 512 / sizeof(Lanes::Element);  // columns; a panel of them: 32 KB
constexpr int64_t kPanelElements = kPanel * kBlock;

#ifdef GEEX_VNNI

// 16 rows of 16 int32, turned.
inline void Transpose(__m512i v[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// Columns [from, from + columns) of weight rows [n][row_bytes] into the panel
// [columns / 4][vectors][16][4]. Rows that are not there are anything, as columns are that only
// fill up the last four: activations are zeros there.
template <int kBits>
void Pack(const uint8_t* weights, int64_t n, int64_t row_bytes, int64_t from, int64_t columns,
          int64_t vectors, int8_t* panel) {
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t rows = std::min<int64_t>(16, n - 16 * v);
    for (int64_t c = 0; c < columns; c += 64) {
      const int64_t some = std::min<int64_t>(64, columns - c);
      __m512i t[16];
      for (int64_t r = 0; r < 16; ++r) {
        const uint8_t* row = weights + (16 * v + r) * row_bytes;
        t[r] = r < rows ? LoadMoved<kBits>(row, from + c, some) : _mm512_setzero_si512();
        // Rows are short for the hardware's prefetcher: the same columns of the next vector.
        _mm_prefetch(reinterpret_cast<const char*>(row + 16 * row_bytes + (from + c) * kBits / 8),
                     _MM_HINT_T0);
      }
      Transpose(t);
      int8_t* to = panel + (c / 4 * vectors + v) * 64;
      for (int64_t i = 0; i < (some + 3) / 4; ++i)
        _mm512_storeu_si512(to + i * vectors * 64, t[i]);
    }
  }
}

#else

template <int kBits>
void Pack(const uint8_t* weights, int64_t n, int64_t row_bytes, int64_t from, int64_t columns,
          int64_t vectors, Lanes::Element* panel) {
  constexpr int64_t L = Lanes::kLanes, P = Lanes::kPer;
  for (int64_t j = 0; j < vectors * L; ++j) {
    Lanes::Element* to = panel + j * P;
    const uint8_t* row = weights + j * row_bytes;
    for (int64_t c = 0; c < columns; c += P, to += vectors * L * P)
      for (int64_t p = 0; p < P; ++p) {
        int32_t w = 0;
        if (j < n && c + p < columns) w = WeightAt<kBits>(row, from + c + p);
        to[p] = static_cast<Lanes::Element>(w + Moved<kBits>());
      }
  }
}

#endif

// R rows by V vectors of outputs: sums[r][...] = start[r] or, with `add`, what is there, plus the
// dots over `steps` * kPer columns.
template <int R, int V>
void RowsByOutputs(const Lanes::Element* x, int64_t x_stride, const Lanes::Element* panel,
                   int64_t steps, bool add, const int32_t* start, int32_t* sums,
                   int64_t sum_stride) {
  constexpr int64_t L = Lanes::kLanes, P = Lanes::kPer;
  Lanes::Vector acc[R][V];
  GEEX_UNROLL
  for (int r = 0; r < R; ++r)
    GEEX_UNROLL
    for (int v = 0; v < V; ++v)
      acc[r][v] = add ? Lanes::Load(sums + r * sum_stride + v * L) : Lanes::Fill(start[r]);
  for (int64_t s = 0; s < steps; ++s) {
    Lanes::Vector w[V];
    GEEX_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Lanes::Load(panel + (s * V + v) * L * P);
    GEEX_UNROLL
    for (int r = 0; r < R; ++r) {
      int32_t some;
      std::memcpy(&some, x + r * x_stride + s * P, 4);
      const Lanes::Vector all = Lanes::Fill(some);
      GEEX_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = Lanes::Dot(acc[r][v], w[v], all);
    }
  }
  GEEX_UNROLL
  for (int r = 0; r < R; ++r)
    GEEX_UNROLL
    for (int v = 0; v < V; ++v) Lanes::Store(sums + r * sum_stride + v * L, acc[r][v]);
}

// The same by groups of `steps` * kPer columns: sums[r][...] = (add: what is there +) the sum over
// groups of scales[group][...] * (starts[r][group] + dots).
template <int R, int V>
void RowsByGroups(const Lanes::Element* x, int64_t x_stride, const Lanes::Element* panel,
                  int64_t groups, int64_t steps, const float* scales, bool add,
                  const int32_t* starts, int64_t start_stride, float* sums, int64_t sum_stride) {
  constexpr int64_t L = Lanes::kLanes, P = Lanes::kPer;
  int32_t dots[R * V * L], start[R];
  for (int64_t g = 0; g < groups; ++g) {
    for (int r = 0; r < R; ++r) start[r] = starts[r * start_stride + g];
    RowsByOutputs<R, V>(x + g * steps * P, x_stride, panel + g * steps * V * L * P, steps, false,
                        start, dots, V * L);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v)
        Lanes::AddScaled(Lanes::Load(dots + (r * V + v) * L), scales + (g * V + v) * L, add || g,
                         sums + r * sum_stride + v * L);
  }
}

// Calls call(rows, vectors), both compile-time constants, for the numbers given.
template <int V, typename Call>
void WithRows(int64_t rows, const Call& call) {
  static_assert(Lanes::kRows == 6, "a case for each number of rows");
  switch (rows) {
#define GEEX_CASE(R)                                                               \
  case R:                                                                          \
    call(std::integral_constant<int, R>{}, std::integral_constant<int, V>{});      \
    break;
    GEEX_CASE(1)
    GEEX_CASE(2)
    GEEX_CASE(3)
    GEEX_CASE(4)
    GEEX_CASE(5)
    GEEX_CASE(6)
#undef GEEX_CASE
  }
}

// Calls call(first row, rows, vectors) for tiles of `count` rows. They are of about the same
// height: low ones have too few sums to hide the latency of a multiplication.
template <typename Call>
void ForTiles(int64_t count, int64_t vectors, const Call& call) {
  int64_t first = 0;
  for (int64_t tiles = (count + Lanes::kRows - 1) / Lanes::kRows; tiles; --tiles) {
    const int64_t rows = (count - first + tiles - 1) / tiles;
    auto tile = [&](auto r, auto v) { call(first, r, v); };
#ifdef GEEX_VNNI
    if (vectors == 4) WithRows<4>(rows, tile);
#endif
    if (vectors == 2) WithRows<2>(rows, tile);
    if (vectors == 1) WithRows<1>(rows, tile);
    first += rows;
  }
}

}  // namespace geex

#endif  // GEEX_TILES
