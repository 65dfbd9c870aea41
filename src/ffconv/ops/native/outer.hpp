// Gradients of the weights of 1x1 convolutions: outer products of pixels, summed.

#pragma once

#include "planes.hpp"
#include "products.hpp"

namespace {

// One thread's sum of outer products of pixels, (rows, columns), as panels of (rows, 2 LANES) values.
template <typename T>
class OuterSum {
 public:
  static constexpr int LANES = Packed<T>::LANES, WIDTH = 2 * LANES;
  static constexpr int64_t CHUNK = 192;  // pixels of a panel that stays in the first cache
  const int64_t rows, columns;

  OuterSum(int64_t rows, int64_t columns, Pieces& pieces)
      : rows(rows),
        columns(columns),
        values(pieces.take<T>(rows * panels() * WIDTH)),
        copy(pieces.take<T>(CHUNK * WIDTH)) {
    if (pieces.start) std::fill_n(values, rows * panels() * WIDTH, T(0));
  }

  int64_t panels() const { return (columns + WIDTH - 1) / WIDTH; }
  const T* row(int64_t panel, int64_t row) const { return values + (panel * rows + row) * WIDTH; }

  // Adds those of a (pixels, rows) and b (pixels, columns), whose pixels are so many values apart.
  void add(const T* a, int64_t a_pixel, const T* b, int64_t b_pixel, int64_t pixels) {
    for (; pixels > 0; pixels -= CHUNK, a += CHUNK * a_pixel, b += CHUNK * b_pixel)
      for (int64_t panel = 0; panel < panels(); ++panel) {
        const bool narrow = columns - panel * WIDTH <= LANES;
        narrow ? add_panel<1>(panel, a, a_pixel, b, b_pixel, std::min(CHUNK, pixels))
               : add_panel<2>(panel, a, a_pixel, b, b_pixel, std::min(CHUNK, pixels));
      }
  }

 private:
  static constexpr int64_t FAR = 2048 / sizeof(T);  // pixels so far apart crowd in a few of its lines
  using V = typename Vector<T, LANES>::type;

  template <int VECTORS>
  void add_panel(int64_t panel, const T* a, int64_t a_pixel, const T* b, int64_t b_pixel, int64_t pixels) {
    const int64_t left = columns - panel * WIDTH;
    b += panel * WIDTH;
    if (left < VECTORS * LANES || b_pixel >= FAR) {
      for (int64_t k = 0; k < pixels; ++k)
        for (int64_t at = 0; at < VECTORS * LANES; at += LANES)
          store<T, LANES>(load<T, LANES>(b + k * b_pixel + at, left - at), copy + k * WIDTH + at, LANES);
      b = copy;
      b_pixel = WIDTH;
    }
    T* to = values + panel * rows * WIDTH;
    int64_t row = 0;
    const auto tiles = [&](auto tile, int size, int64_t spared) {
      for (; row + size <= rows && row + spared != rows; row += size)
        tile(a + row, a_pixel, b, b_pixel, pixels, to + row * WIDTH);
    };
    tiles(add_tile<TILE_ROWS, VECTORS>, TILE_ROWS, TILE_ROWS > 8 ? 16 : 0);  // not 14, 1 and 1 of 16
    if (TILE_ROWS > 8) tiles(add_tile<8, VECTORS>, 8, 0);
    tiles(add_tile<4, VECTORS>, 4, 0);
    tiles(add_tile<1, VECTORS>, 1, 0);
  }

  template <int ROWS, int VECTORS>
  static void add_tile(const T* a, int64_t a_pixel, const T* b, int64_t b_pixel, int64_t pixels, T* to) {
    V sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        sum[r][v] = V{};  // added to the whole at last: long sums in one go lose digits
        __builtin_prefetch(to + r * WIDTH + v * LANES, 1);
      }
    for (int64_t k = 0; k < pixels; ++k, a += a_pixel, b += b_pixel) {
      V right[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) right[v] = load<T, LANES>(b + v * LANES, LANES);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V value = a[r] - V{};  // in all lanes
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sum[r][v] += value * right[v];
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        T* const whole = to + r * WIDTH + v * LANES;
        store<T, LANES>(load<T, LANES>(whole, LANES) + sum[r][v], whole, LANES);
      }
  }

  T *const values, *const copy;
};

}  // namespace
