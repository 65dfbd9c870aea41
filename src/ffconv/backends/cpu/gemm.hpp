// Products of the pixels of a map, rows of a tall matrix, with the small weight of a 1x1 convolution.

#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.hpp"

namespace {

// What becomes of a product: it is stored, with rows of another matrix and the columns' shifts added, and after a ReLU.
enum Finish : unsigned { STORE = 0, ADD = 1, SHIFT = 2, RELU = 4 };

// The weights of one column of a product, `step` apart, their factor, and its shift.
struct PackedColumn {
  const float* weight = nullptr;
  float scale = 0, shift = 0;
  int64_t step = 1;

  const float* at(int64_t k) const { return weight + k * step; }
};

// A weight (columns, depth) packed for the kernel: panels of (depth, 2, LANES) values, of 2 LANES columns each,
// the last one filled up with zeros.
struct Packed {
  static constexpr int LANES = VECTOR_LANES, WIDTH = 2 * LANES;
  using V = Vector<LANES>;
  int64_t columns, depth, kept;  // so many panels at a time, each in the place of the one so many before it
  float* values;

  Packed(int64_t columns, int64_t depth, int64_t kept, Arena& arena)
      : columns(columns), depth(depth), kept(kept), values(arena.take(kept * WIDTH * (depth + 1))) {}

  Packed(int64_t columns, int64_t depth, Arena& arena)
      : Packed(columns, depth, (columns + WIDTH - 1) / WIDTH, arena) {}

  int64_t panels() const { return (columns + WIDTH - 1) / WIDTH; }
  int64_t columns_of(int64_t number) const { return std::min<int64_t>(WIDTH, columns - number * WIDTH); }
  float* panel(int64_t number) const { return values + number % kept * WIDTH * (depth + 1); }
  float* shift(int64_t number) const { return panel(number) + WIDTH * depth; }  // one a column, for SHIFT

  void clear(int64_t number) { std::fill_n(panel(number), WIDTH * depth, float(0)); }

  // Fills `length` of the depth of one panel. `column(number)` says what a column is made of, `place(k)` where its
  // value k goes.
  template <typename Column, typename Place>
  void pack(int64_t number, int64_t length, Column column, Place place) {
    float* to = panel(number);
    for (int64_t half = 0; half < 2; ++half, to += LANES) {
      const int64_t first = number * WIDTH + half * LANES;
      PackedColumn of[LANES];
      V scale{}, shifts{};
      bool across = true, down = true;  // whether values lie side by side from column to column, or within columns
      for (int64_t lane = 0; lane < LANES; ++lane) {
        if (first + lane < columns) of[lane] = column(first + lane);
        scale[lane] = of[lane].scale;
        shifts[lane] = of[lane].shift;
        across = across && of[lane].weight && of[lane].weight == of[0].weight + lane && of[lane].step == of[0].step;
        down = down && of[lane].step == 1;
      }
      store<LANES>(shifts, shift(number) + half * LANES, LANES);
      const auto put = [&](V value, int64_t k) { store<LANES>(value * scale, to + place(k) * WIDTH, LANES); };
      if (down)
        pack_squares(of, length, put);
      else
        for (int64_t k = 0; k < length; ++k) put(across ? load<LANES>(of[0].at(k), LANES) : gathered(of, k), k);
    }
  }

 private:
  template <typename Put>
  static void pack_squares(const PackedColumn (&of)[LANES], int64_t length, Put put) {
    V square[LANES];
    for (int64_t k = 0; k < length; k += LANES) {
      const int64_t count = std::min<int64_t>(LANES, length - k);
      for (int lane = 0; lane < LANES; ++lane)
        square[lane] = of[lane].weight ? load<LANES>(of[lane].at(k), count) : V{};
      transpose<LANES>(square);
      for (int64_t i = 0; i < count; ++i) put(square[i], k + i);
    }
  }

  static V gathered(const PackedColumn (&of)[LANES], int64_t k) {
    V value{};
    for (int lane = 0; lane < LANES; ++lane)
      if (of[lane].weight) value[lane] = *of[lane].at(k);
    return value;
  }
};

// A part of a product's depth: rows of a matrix, `step` apart, times the values of each of the panel's columns from
// `start` on.
struct Part {
  const float* first;
  int64_t step, depth, start;
};

// Rows of a result, or none.
template <typename T>
struct Rows {
  T* first;
  int64_t step;
};

// A sum of parts, to rows of `c`.
struct Product {
  const Part *parts, *parts_end;
  const float *panel, *shift;
  Rows<float> c;
  Rows<const float> onto;  // what is added
  int64_t columns;
  unsigned finish;
  bool first_panel;  // the next tile is not in the cache yet
};

template <int ROWS, int VECTORS>
void product_tile(const Product& of, int64_t row) {
  constexpr int LANES = Packed::LANES;
  using V = Vector<LANES>;
  constexpr int64_t ROWS_AHEAD = 32;  // of the panel, for which the first cache is too small
  const int64_t c_step = of.c.step, onto_step = of.onto.step;
  float* const c = of.c.first + row * c_step;
  const float* const onto = of.onto.first + row * onto_step;
  V sum[ROWS][VECTORS];
#pragma GCC unroll 2
  for (int v = 0; v < VECTORS; ++v) {
    const V start = of.finish & SHIFT ? load<LANES>(of.shift + v * LANES, LANES) : V{};
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      sum[r][v] = start;
      __builtin_prefetch(c + r * c_step + v * LANES, 1);
      if (onto != c) __builtin_prefetch(onto + r * onto_step + v * LANES);
    }
  }
  for (const Part* part = of.parts; part < of.parts_end; ++part) {
    const int64_t step = part->step, depth = part->depth;
    const float *left = part->first + row * step, *panel = of.panel + part->start * Packed::WIDTH;
    const int64_t ahead = of.first_panel && part + 1 == of.parts_end ? ROWS * step : LANES;  // the next tile, or values
    for (int64_t start = 0; start < depth; start += LANES) {
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) __builtin_prefetch(left + r * step + start + ahead);
      const int64_t end = std::min<int64_t>(start + LANES, depth);
      for (int64_t k = start; k < end; ++k) {
        V right[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) {
          const float* from = panel + (2 * k + v) * LANES;
          right[v] = load<LANES>(from, LANES);
          __builtin_prefetch(from + ROWS_AHEAD * Packed::WIDTH);
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
          const V value = left[r * step + k] - V{};  // in all lanes
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) sum[r][v] += value * right[v];
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      V value = sum[r][v];
      const int64_t count = of.columns - v * LANES;
      if (of.finish & ADD) value += load<LANES>(onto + r * onto_step + v * LANES, count);
      if (of.finish & RELU) value = relu(value);
      store<LANES>(value, c + r * c_step + v * LANES, count);
    }
}

// By tiles of TILE_ROWS rows, and one of those that are left.
template <int VECTORS, int... ROWS>
void product_rows(const Product& of, int64_t rows, std::integer_sequence<int, ROWS...>) {
  using Tile = void (*)(const Product&, int64_t);
  static constexpr Tile TILES[] = {product_tile<ROWS + 1, VECTORS>...};
  for (int64_t row = 0; row < rows; row += TILE_ROWS)
    TILES[std::min<int64_t>(TILE_ROWS, rows - row) - 1](of, row);
}

// So many rows times one panel of the weight, to those of `c`, whose first column is the panel's. What is added is
// what those hold, or rows elsewhere.
void multiply_panel(unsigned finish, const Part* parts, const Part* parts_end, int64_t rows,
                    const Packed& weight, int64_t panel, Rows<float> c, Rows<const float> onto = {}) {
  if (!onto.first) onto = {c.first, c.step};
  const int64_t columns = weight.columns_of(panel);
  const Product of{parts, parts_end, weight.panel(panel), weight.shift(panel), c, onto, columns, finish,
                      panel == 0};
  constexpr std::make_integer_sequence<int, TILE_ROWS> SIZES;
  columns > Packed::LANES ? product_rows<2>(of, rows, SIZES) : product_rows<1>(of, rows, SIZES);
}

// Likewise, where the first column of `c` and of what is added is the weight's.
void multiply(unsigned finish, const Part* parts, const Part* parts_end, int64_t rows, const Packed& weight,
              int64_t panel, Rows<float> c, Rows<const float> onto = {}) {
  const int64_t first = panel * Packed::WIDTH;
  if (onto.first) onto.first += first;
  multiply_panel(finish, parts, parts_end, rows, weight, panel, {c.first + first, c.step}, onto);
}

// The product with all panels, by so many rows that they stay in the cache while the panels pass.
void multiply_all(unsigned finish, const float* a, int64_t a_step, int64_t rows, const Packed& weight, float* c,
                  int64_t c_step) {
  constexpr int64_t CHUNK = 16 * TILE_ROWS;
  for (int64_t row = 0; row < rows; row += CHUNK) {
    const Part whole{a + row * a_step, a_step, weight.depth, 0};
    for (int64_t panel = 0; panel < weight.panels(); ++panel)
      multiply(finish, &whole, &whole + 1, std::min(CHUNK, rows - row), weight, panel, {c + row * c_step, c_step});
  }
}

}  // namespace
