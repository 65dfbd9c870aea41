// Gradients of the weights of 1x1 convolutions: outer products of pixels, summed.

#pragma once

#include <type_traits>

#include "planes.hpp"
#include "products.hpp"

namespace {

// Where a thread copies pixels to for its sums of at most so many rows.
template <typename T>
struct OuterCopies {
  static constexpr int64_t CHUNK = 192;  // pixels of a panel that stays in the first cache
  T *left, *right;

  OuterCopies(int64_t rows, Pieces& pieces)
      : left(pieces.take<T>(CHUNK * rows)), right(pieces.take<T>(CHUNK * Packed<T>::WIDTH)) {}
};

// One thread's sum of outer products of pixels, (rows, columns), as panels of (rows, 2 LANES) values.
template <typename T>
class OuterSum {
 public:
  static constexpr int LANES = Packed<T>::LANES, WIDTH = Packed<T>::WIDTH;
  static constexpr int64_t CHUNK = OuterCopies<T>::CHUNK;
  const int64_t rows, columns;

  OuterSum(int64_t rows, int64_t columns, const OuterCopies<T>& copies, Pieces& pieces)
      : rows(rows), columns(columns), copies(copies), values(pieces.take<T>(rows * panels() * WIDTH)) {
    if (pieces.start) std::fill_n(values, rows * panels() * WIDTH, T(0));
  }

  int64_t panels() const { return (columns + WIDTH - 1) / WIDTH; }
  const T* row(int64_t panel, int64_t row) const { return values + (panel * rows + row) * WIDTH; }

  // Adds those of a (pixels, rows) and b (pixels, columns), whose pixels are so many values apart.
  void add(const T* a, int64_t a_pixel, const T* b, int64_t b_pixel, int64_t pixels) {
    const int64_t chunks = (pixels + CHUNK - 1) / CHUNK;
    // Whether so many panels read a that it pays to lay a tile's values of all pixels side by side.
    const bool copied = panels() > (a_pixel >= FAR ? 2 : 8);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = pixels * chunk / chunks, count = pixels * (chunk + 1) / chunks - first;
      if (copied) copy_left(a + first * a_pixel, a_pixel, count);
      for (int64_t panel = 0; panel < panels(); ++panel) {
        const bool narrow = columns - panel * WIDTH <= LANES;
        const T* left = copied ? nullptr : a + first * a_pixel;
        narrow ? add_panel<1>(panel, left, a_pixel, b + first * b_pixel, b_pixel, count)
               : add_panel<2>(panel, left, a_pixel, b + first * b_pixel, b_pixel, count);
      }
    }
  }

 private:
  static constexpr int64_t FAR = 2048 / sizeof(T);  // pixels so far apart crowd in a few of its lines
  using V = typename Vector<T, LANES>::type;

  // The rows by tiles: `work(row, size)`, where the size is a constant.
  template <typename Work>
  void each_tile(Work work) const {
    int64_t row = 0;
    const auto tiles = [&](auto size, int64_t spared) {
      for (; row + size <= rows && row + spared != rows; row += size) work(row, size);
    };
    tiles(std::integral_constant<int, TILE_ROWS>{}, TILE_ROWS > 8 ? 16 : 0);  // not 14, 1 and 1 of 16
    if (TILE_ROWS > 8) tiles(std::integral_constant<int, 8>{}, 0);
    tiles(std::integral_constant<int, 4>{}, 0);
    tiles(std::integral_constant<int, 1>{}, 0);
  }

  void copy_left(const T* a, int64_t a_pixel, int64_t pixels) {
    each_tile([&](int64_t row, auto size) {
      T* to = copies.left + row * CHUNK;
      for (int64_t k = 0; k < pixels; ++k, to += size) std::copy_n(a + k * a_pixel + row, int(size), to);
    });
  }

  // Without a, of its copy.
  template <int VECTORS>
  void add_panel(int64_t panel, const T* a, int64_t a_pixel, const T* b, int64_t b_pixel, int64_t pixels) {
    const int64_t rest = columns - panel * WIDTH;
    b += panel * WIDTH;
    if (rest < VECTORS * LANES || b_pixel >= FAR) {
      for (int64_t k = 0; k < pixels; ++k)
        for (int64_t at = 0; at < VECTORS * LANES; at += LANES)
          store<T, LANES>(load<T, LANES>(b + k * b_pixel + at, rest - at), copies.right + k * WIDTH + at, LANES);
      b = copies.right;
      b_pixel = WIDTH;
    }
    T* to = values + panel * rows * WIDTH;
    each_tile([&](int64_t row, auto size) {
      const T* from = a ? a + row : copies.left + row * CHUNK;
      add_tile<size, VECTORS>(from, a ? a_pixel : size, b, b_pixel, pixels, to + row * WIDTH);
    });
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
      V column[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) column[v] = load<T, LANES>(b + v * LANES, LANES);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V value = a[r] - V{};  // in all lanes
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sum[r][v] += value * column[v];
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

  const OuterCopies<T> copies;
  T* const values;
};

}  // namespace
