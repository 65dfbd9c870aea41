// Winograd's minimal filtering: a tile of 2x2 pixels that 3x3 kernels of stride 1 make takes 16 products a channel
// instead of 36, at 4x4 points, of sums of the 4x4 pixels that it reads with sums of the kernel's weights:
//
//     Y = A^T ((G g G^T) * (B^T d B)) A
//
// The channels' sum is taken at the points, so that each of them is one product of matrices for all tiles.
// Reference: Lavin, Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, F(2x2, 3x3).

#pragma once

#include "gemm.hpp"

namespace {

constexpr int TILE = 2, TAPS = 3, READ = TILE + TAPS - 1;  // along each axis: pixels made, weights, pixels read
constexpr int POINTS = READ * READ;

// Along one axis, pixels d become B^T d.
template <typename V>
inline void pixels_to_points(V& d0, V& d1, V& d2, V& d3) {
  const V sum = d1 + d2, difference = d2 - d1;
  d0 -= d2;
  d3 = d1 - d3;
  d1 = sum;
  d2 = difference;
}

// Weights g become G g.
template <typename V>
inline void weights_to_points(const V& g0, const V& g1, const V& g2, V& p0, V& p1, V& p2, V& p3) {
  const V outer = (g0 + g2) / 2, inner = g1 / 2;
  p0 = g0;
  p1 = outer + inner;
  p2 = outer - inner;
  p3 = g2;
}

// Products m become the two pixels A^T m.
template <typename V>
inline void points_to_pixels(const V& m0, const V& m1, const V& m2, const V& m3, V& y0, V& y1) {
  y0 = m0 + m1 + m2;
  y1 = m1 - m2 - m3;
}

// Gradients of pixels, y0 and y1, become those of the products, A y.
template <typename V>
inline void pixel_gradients_to_points(V& y0, V& y1, V& y2, V& y3) {
  y2 = y0 - y1;
  y3 = -y1;
  y1 += y0;
}

// Gradients m at the points become those of the weights, G^T m.
template <typename V>
inline void points_to_weights(const V& m0, const V& m1, const V& m2, const V& m3, V& g0, V& g1, V& g2) {
  const V half = (m1 + m2) / 2;
  g0 = m0 + half;
  g1 = (m1 - m2) / 2;
  g2 = m3 + half;
}

// In a panel the last nine rows of `depth` values a column, those of the taps, become those of all points: of the
// first `length` inputs.
void taps_to_points(const Packed& weight, int64_t panel, int64_t depth, int64_t length) {
  constexpr int LANES = Packed::LANES, WIDTH = Packed::WIDTH;
  using V = Vector<LANES>;
  const int64_t point = depth * WIDTH;
  float* values = weight.panel(panel);
  for (float* const end = values + length * WIDTH; values < end; values += LANES) {
    V taps[TAPS][TAPS], half[READ][TAPS], points[READ][READ];
#pragma GCC unroll 9
    for (int tap = 0; tap < TAPS * TAPS; ++tap)
      taps[tap / TAPS][tap % TAPS] = load<LANES>(values + (POINTS - TAPS * TAPS + tap) * point, LANES);
#pragma GCC unroll 3
    for (int i = 0; i < TAPS; ++i)
      weights_to_points(taps[0][i], taps[1][i], taps[2][i], half[0][i], half[1][i], half[2][i], half[3][i]);
#pragma GCC unroll 4
    for (int i = 0; i < READ; ++i) {
      V(&line)[READ] = points[i];
      weights_to_points(half[i][0], half[i][1], half[i][2], line[0], line[1], line[2], line[3]);
#pragma GCC unroll 4
      for (int j = 0; j < READ; ++j) store<LANES>(line[j], values + (READ * i + j) * point, LANES);
    }
  }
}

// Values of so many tiles at all points.
class TilePoints {
 public:
  static constexpr int LANES = Packed::LANES;

  // Rows and points lie apart by no power of two, for which the cache has few places. Without depth there are none.
  TilePoints(int64_t tiles, int64_t depth, Arena& arena)
      : row((depth + LANES - 1) / LANES * LANES + LANES),
        depth(depth),
        point(tiles * row + LANES),
        values(arena.take(depth ? POINTS * point : 0)) {}

  // The tiles' values at a point, `row` apart.
  const float* at(int64_t number) const { return values + number * point; }

  // What a tile has of pixels; of those that are null zeros. `along(v0, v1, v2, v3)` makes the values at the points of
  // one axis from as many pixels.
  template <int SIDE, typename Along>
  void transform(int64_t tile, const float* const (&pixels)[SIDE][SIDE], Along along) const {
    using V = Vector<LANES>;
    float* to = values + tile * row;
    for (int64_t channel = 0; channel < depth; channel += LANES, to += LANES) {
      V d[READ][READ];
#pragma GCC unroll 4
      for (int i = 0; i < SIDE; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < SIDE; ++j)
          d[i][j] = pixels[i][j] ? load<LANES>(pixels[i][j] + channel, depth - channel) : V{};
        along(d[i][0], d[i][1], d[i][2], d[i][3]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < READ; ++j) {
        along(d[0][j], d[1][j], d[2][j], d[3][j]);
#pragma GCC unroll 4
        for (int i = 0; i < READ; ++i) store<LANES>(d[i][j], to + (READ * i + j) * point, LANES);
      }
    }
  }

  const int64_t row;

 private:
  const int64_t depth, point;
  float* const values;
};

// As many tiles as one thread makes at once: their input at all points, its products with one panel of the weight, and
// the pixels to which more is added before they are written.
class TileBlock {
 public:
  static constexpr int LANES = Packed::LANES, WIDTH = Packed::WIDTH;
  using V = Vector<LANES>;

  // So many at once: rows enough for what a product reads of the weight.
  static constexpr int64_t MOST = 56 / TILE_ROWS * TILE_ROWS;

  TileBlock(int64_t depth, Arena& arena)
      : depth(depth),
        inputs(MOST, depth, arena),
        products(arena.take(depth ? MOST * POINTS * WIDTH : 0)),
        made(arena.take(depth ? MOST * TILE * TILE * WIDTH : 0)) {}

  // What a tile reads; null where it reaches beyond the map, which has zeros there.
  void transform_input(int64_t tile, const float* const (&pixels)[READ][READ]) const {
    inputs.transform(tile, pixels, [](V& d0, V& d1, V& d2, V& d3) { pixels_to_points(d0, d1, d2, d3); });
  }

  // So many tiles with the first `length` inputs of one panel.
  void multiply(int64_t tiles, int64_t length, const Packed& weight, int64_t panel) const {
    for (int64_t i = 0; i < POINTS; ++i) {
      const Part part{inputs.at(i), inputs.row, length, i * depth};
      multiply_panel(STORE, &part, &part + 1, tiles, weight, panel, {products + i * WIDTH, POINTS * WIDTH});
    }
  }

  // The pixels that a tile makes, of columns from this one of the panel on.
  void transform_output(int64_t tile, int64_t column, V (&pixels)[TILE][TILE]) const {
    const float* from = products + tile * POINTS * WIDTH + column;
    V half[TILE][READ];
#pragma GCC unroll 4
    for (int j = 0; j < READ; ++j) {
      V m[READ];
#pragma GCC unroll 4
      for (int i = 0; i < READ; ++i) m[i] = load<LANES>(from + (READ * i + j) * WIDTH, LANES);
      points_to_pixels(m[0], m[1], m[2], m[3], half[0][j], half[1][j]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < TILE; ++i)
      points_to_pixels(half[i][0], half[i][1], half[i][2], half[i][3], pixels[i][0], pixels[i][1]);
  }

  // Pixels of the tiles from this one on that lie in one row, WIDTH columns each.
  float* pixels_of(int64_t pixel_row, int64_t tile) const { return made + (pixel_row * MOST + tile) * TILE * WIDTH; }

 private:
  const int64_t depth;
  const TilePoints inputs;
  float *const products, *const made;
};

}  // namespace
