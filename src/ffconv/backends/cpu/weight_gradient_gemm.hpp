// Gradients of the weights of 1x1 convolutions: outer products of pixels, summed.

#pragma once

#include <type_traits>

#include "fft_2d.hpp"
#include "gemm.hpp"

namespace {

// Where a thread copies pixels to for its sums of at most so many rows.
struct OuterCopies {
  static constexpr int64_t CHUNK = 192;  // pixels of a panel that stays in the first cache
  float *left, *right;

  OuterCopies(int64_t rows, Arena& arena)
      : left(arena.take(CHUNK * rows)), right(arena.take(CHUNK * Packed::WIDTH)) {}
};

// One thread's sum of outer products of pixels, (rows, columns), as panels of (rows, 2 LANES) values.
class OuterSum {
 public:
  static constexpr int LANES = Packed::LANES, WIDTH = Packed::WIDTH;
  static constexpr int64_t CHUNK = OuterCopies::CHUNK;
  const int64_t rows, columns;

  OuterSum(int64_t rows, int64_t columns, Arena& arena)
      : rows(rows), columns(columns), values(arena.take(rows * panels() * WIDTH)) {}

  void clear() { std::fill_n(values, rows * panels() * WIDTH, 0.0f); }

  int64_t panels() const { return (columns + WIDTH - 1) / WIDTH; }
  const float* row(int64_t panel, int64_t row) const { return values + (panel * rows + row) * WIDTH; }

  // Adds those of a (pixels, rows) and b (pixels, columns), whose pixels are so many values apart.
  void add(const float* a, int64_t a_pixel, const float* b, int64_t b_pixel, int64_t pixels,
           const OuterCopies& copies) {
    const int64_t chunks = (pixels + CHUNK - 1) / CHUNK;
    // Whether so many panels read a that it pays to lay a tile's values of all pixels side by side.
    const bool copied = panels() > (a_pixel >= FAR ? 2 : 8);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = pixels * chunk / chunks, count = pixels * (chunk + 1) / chunks - first;
      if (copied) copy_left(a + first * a_pixel, a_pixel, count, copies.left);
      for (int64_t panel = 0; panel < panels(); ++panel) {
        const bool narrow = columns - panel * WIDTH <= LANES;
        const float* left = copied ? nullptr : a + first * a_pixel;
        narrow ? add_panel<1>(panel, left, a_pixel, b + first * b_pixel, b_pixel, count, copies)
               : add_panel<2>(panel, left, a_pixel, b + first * b_pixel, b_pixel, count, copies);
      }
    }
  }

 private:
  static constexpr int64_t FAR = 2048 / sizeof(float);  // pixels so far apart crowd in a few of its lines
  using V = Vector<LANES>;

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

  void copy_left(const float* a, int64_t a_pixel, int64_t pixels, float* copy) const {
    each_tile([&](int64_t row, auto size) {
      float* to = copy + row * CHUNK;
      for (int64_t k = 0; k < pixels; ++k, to += size) std::copy_n(a + k * a_pixel + row, int(size), to);
    });
  }

  // Without a, of its copy.
  template <int VECTORS>
  void add_panel(int64_t panel, const float* a, int64_t a_pixel, const float* b, int64_t b_pixel, int64_t pixels,
                 const OuterCopies& copies) {
    const int64_t rest = columns - panel * WIDTH;
    b += panel * WIDTH;
    if (rest < VECTORS * LANES || b_pixel >= FAR) {
      for (int64_t k = 0; k < pixels; ++k)
        for (int64_t at = 0; at < VECTORS * LANES; at += LANES)
          store<LANES>(load<LANES>(b + k * b_pixel + at, rest - at), copies.right + k * WIDTH + at, LANES);
      b = copies.right;
      b_pixel = WIDTH;
    }
    float* to = values + panel * rows * WIDTH;
    each_tile([&](int64_t row, auto size) {
      const float* from = a ? a + row : copies.left + row * CHUNK;
      add_tile<size, VECTORS>(from, a ? a_pixel : size, b, b_pixel, pixels, to + row * WIDTH);
    });
  }

  template <int ROWS, int VECTORS>
  static void add_tile(const float* a, int64_t a_pixel, const float* b, int64_t b_pixel, int64_t pixels, float* to) {
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
      for (int v = 0; v < VECTORS; ++v) column[v] = load<LANES>(b + v * LANES, LANES);
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
        float* const whole = to + r * WIDTH + v * LANES;
        store<LANES>(load<LANES>(whole, LANES) + sum[r][v], whole, LANES);
      }
  }

  float* const values;
};

}  // namespace
