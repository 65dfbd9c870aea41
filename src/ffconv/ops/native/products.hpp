// Products of the pixels of a map, rows of a tall matrix, with the small weight of a 1x1 convolution.

#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.hpp"

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, TILE_ROWS = 14;  // a tile's sums fill 28 of 32 registers
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, TILE_ROWS = 6;  // 12 of 16
#else
constexpr int VECTOR_BYTES = 16, TILE_ROWS = 6;
#endif

// What becomes of a product: it is stored, added to what is there, or stored after a shift and a ReLU.
enum class Finish { STORE, ADD, SHIFT_RELU };

// The weights of one column of a product, their factor, and its shift.
template <typename T>
struct PackedColumn {
  const T* weight = nullptr;
  T scale = 0, shift = 0;
};

// A weight (columns, depth) packed for the kernel: panels of (depth, 2, LANES) values, of 2 LANES columns each,
// the last one filled up with zeros.
template <typename T>
struct Packed {
  static constexpr int LANES = VECTOR_BYTES / sizeof(T), WIDTH = 2 * LANES;
  int64_t columns, depth;
  T* values;
  T* shift;  // one a column, for Finish::SHIFT_RELU

  int64_t panels() const { return (columns + WIDTH - 1) / WIDTH; }
  static int64_t size(int64_t columns, int64_t depth) { return (columns + WIDTH - 1) / WIDTH * WIDTH * (depth + 1); }

  Packed(int64_t columns, int64_t depth, T* memory)
      : columns(columns), depth(depth), values(memory), shift(memory + panels() * WIDTH * depth) {}

  // Fills one panel. `column(number)` says what a column is made of, `place(k)` where its value k goes; places
  // that nothing goes to are zero.
  template <typename Column, typename Place>
  void pack(int64_t panel, int64_t length, Column column, Place place) {
    using V = typename Vector<T, LANES>::type;
    T* to = values + panel * WIDTH * depth;
    if (length < depth) std::fill_n(to, WIDTH * depth, T(0));
    for (int64_t half = 0; half < 2; ++half, to += LANES) {
      const int64_t first = panel * WIDTH + half * LANES;
      const T* rows[LANES];
      V scale{}, shifts{};
      for (int64_t lane = 0; lane < LANES; ++lane) {
        const PackedColumn<T> of = first + lane < columns ? column(first + lane) : PackedColumn<T>{};
        rows[lane] = of.weight;
        scale[lane] = of.scale;
        shifts[lane] = of.shift;
      }
      store<T, LANES>(shifts, shift + first, LANES);
      for (int64_t k = 0; k < length; k += LANES) {
        const int64_t count = std::min<int64_t>(LANES, length - k);
        V square[LANES];
        for (int lane = 0; lane < LANES; ++lane) square[lane] = rows[lane] ? load<T, LANES>(rows[lane] + k, count) : V{};
        transpose<T, LANES>(square);
        for (int64_t i = 0; i < count; ++i) store<T, LANES>(square[i] * scale, to + place(k + i) * WIDTH, LANES);
      }
    }
  }
};

template <Finish FINISH, typename T, int ROWS, int VECTORS>
inline void product_tile(const T* a, int64_t a_row, const T* panel, int64_t depth, const T* shift, T* c, int64_t c_row,
                         int64_t columns) {
  constexpr int LANES = Packed<T>::LANES;
  using V = typename Vector<T, LANES>::type;
  V sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      sum[r][v] = FINISH == Finish::SHIFT_RELU ? load<T, LANES>(shift + v * LANES, LANES) : V{};
      if (FINISH == Finish::ADD) __builtin_prefetch(c + r * c_row + v * LANES, 1);
    }
  for (int64_t start = 0; start < depth; start += LANES) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) __builtin_prefetch(a + (ROWS + r) * a_row + start);  // of the next tile
    const int64_t end = std::min<int64_t>(start + LANES, depth);
    for (int64_t k = start; k < end; ++k) {
      V b[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) b[v] = load<T, LANES>(panel + (2 * k + v) * LANES, LANES);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V value = a[r * a_row + k] - V{};  // in all lanes
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sum[r][v] += value * b[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      V value = sum[r][v];
      T* to = c + r * c_row + v * LANES;
      if (FINISH == Finish::ADD) value += load<T, LANES>(to, columns - v * LANES);
      if (FINISH == Finish::SHIFT_RELU) value = value < V{} ? V{} : value;  // which keeps NaN, as ReLU does
      store<T, LANES>(value, to, columns - v * LANES);
    }
}

template <Finish FINISH, typename T, int VECTORS>
void product_panel(const T* a, int64_t a_row, int64_t rows, const T* panel, int64_t depth, const T* shift, T* c,
                   int64_t c_row, int64_t columns) {
  const auto tiles = [&](auto tile, int size) {
    for (; rows >= size; rows -= size, a += size * a_row, c += size * c_row)
      tile(a, a_row, panel, depth, shift, c, c_row, columns);
  };
  tiles(product_tile<FINISH, T, TILE_ROWS, VECTORS>, TILE_ROWS);
  if (TILE_ROWS > 8) tiles(product_tile<FINISH, T, 8, VECTORS>, 8);
  tiles(product_tile<FINISH, T, 4, VECTORS>, 4);
  tiles(product_tile<FINISH, T, 1, VECTORS>, 1);
}

// `rows` pixels of `a` times one panel of the weight, to those of `c`, whose first column is the weight's.
template <Finish FINISH, typename T>
void multiply(const T* a, int64_t a_row, int64_t rows, const Packed<T>& weight, int64_t panel, T* c, int64_t c_row) {
  constexpr int WIDTH = Packed<T>::WIDTH;
  const int64_t first = panel * WIDTH, columns = std::min<int64_t>(WIDTH, weight.columns - first);
  const T *values = weight.values + first * weight.depth, *shift = weight.shift + first;
  if (columns > Packed<T>::LANES)
    product_panel<FINISH, T, 2>(a, a_row, rows, values, weight.depth, shift, c + first, c_row, columns);
  else
    product_panel<FINISH, T, 1>(a, a_row, rows, values, weight.depth, shift, c + first, c_row, columns);
}

// The whole product, by so many rows that they stay in the cache while the panels pass.
template <Finish FINISH, typename T>
void multiply_all(const T* a, int64_t a_row, int64_t rows, const Packed<T>& weight, T* c, int64_t c_row) {
  constexpr int64_t CHUNK = 8 * TILE_ROWS;
  for (int64_t row = 0; row < rows; row += CHUNK)
    for (int64_t panel = 0; panel < weight.panels(); ++panel)
      multiply<FINISH, T>(a + row * a_row, a_row, std::min(CHUNK, rows - row), weight, panel, c + row * c_row, c_row);
}

}  // namespace
