// Dot products of many int8 rows: tiles of rows x outputs that stay in registers.
//
// The weights of a panel (kPanel outputs) are laid out anew, kBlock columns at a time, so that one
// load gives kPer columns of kLanes outputs; all rows then pass by while they are in the L1.
#pragma once

#include "lanes.h"

#ifdef GEEX_TILES

#include <algorithm>

// Sums stay in registers only if their loops are unrolled before all else.
#define GEEX_UNROLL _Pragma("GCC unroll 8")

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

// Weight rows of int8 [n, k] at `weights`, columns [0, columns) of them, into the panel
// [columns / 4][vectors][16][4]. Rows and columns that are not there are zeros.
inline void Pack(const int8_t* weights, int64_t n, int64_t k, int64_t columns, int64_t vectors,
                 int8_t* panel) {
  const __m512i up = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t rows = std::min<int64_t>(16, n - 16 * v);
    for (int64_t c = 0; c < columns; c += 64) {
      const int64_t some = std::min<int64_t>(64, columns - c);
      const __mmask64 mask = some == 64 ? ~0ull : (1ull << some) - 1;
      __m512i t[16];
      for (int64_t r = 0; r < 16; ++r) {
        const int8_t* from = weights + (16 * v + r) * k + c;
        t[r] = r < rows ? _mm512_maskz_loadu_epi8(mask, from) : _mm512_setzero_si512();
        // Rows are short for the hardware's prefetcher: the same columns of the next vector.
        _mm_prefetch(reinterpret_cast<const char*>(from + 16 * k), _MM_HINT_T0);
      }
      Transpose(t);
      int8_t* to = panel + (c / 4 * vectors + v) * 64;
      for (int64_t i = 0; i < (some + 3) / 4; ++i)
        _mm512_storeu_si512(to + i * vectors * 64, _mm512_xor_si512(t[i], up));
    }
  }
}

#else

inline void Pack(const int8_t* weights, int64_t n, int64_t k, int64_t columns, int64_t vectors,
                 Lanes::Element* panel) {
  constexpr int64_t L = Lanes::kLanes, P = Lanes::kPer;
  for (int64_t j = 0; j < vectors * L; ++j) {
    Lanes::Element* to = panel + j * P;
    for (int64_t c = 0; c < columns; c += P, to += vectors * L * P)
      for (int64_t p = 0; p < P; ++p) {
        const int w = j < n && c + p < columns ? weights[j * k + c + p] : 0;
        to[p] = static_cast<Lanes::Element>(w + Lanes::kMoved);
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

using TileFunction = void (*)(const Lanes::Element*, int64_t, const Lanes::Element*, int64_t, bool,
                              const int32_t*, int32_t*, int64_t);

template <int V>
TileFunction TileOf(int64_t rows) {
  static_assert(Lanes::kRows == 6, "one for each number of rows");
  constexpr TileFunction all[] = {RowsByOutputs<1, V>, RowsByOutputs<2, V>, RowsByOutputs<3, V>,
                                  RowsByOutputs<4, V>, RowsByOutputs<5, V>, RowsByOutputs<6, V>};
  return all[rows - 1];
}

inline TileFunction TileOf(int64_t rows, int64_t vectors) {
#ifdef GEEX_VNNI
  if (vectors == 3) return TileOf<3>(rows);
  if (vectors == 4) return TileOf<4>(rows);
#endif
  return vectors == 1 ? TileOf<1>(rows) : TileOf<2>(rows);
}

// Rows [count][x_stride] by the panel; see RowsByOutputs. Tiles are of about the same height: low
// ones have too few sums to hide the latency of a multiplication.
inline void PanelDots(const Lanes::Element* x, int64_t count, int64_t x_stride,
                      const Lanes::Element* panel, int64_t vectors, int64_t steps, bool add,
                      const int32_t* starts, int32_t* sums, int64_t sum_stride) {
  for (int64_t tiles = (count + Lanes::kRows - 1) / Lanes::kRows; tiles; --tiles) {
    const int64_t rows = (count + tiles - 1) / tiles;
    TileOf(rows, vectors)(x, x_stride, panel, steps, add, starts, sums, sum_stride);
    x += rows * x_stride;
    starts += rows;
    sums += rows * sum_stride;
    count -= rows;
  }
}

}  // namespace geex

#endif  // GEEX_TILES
