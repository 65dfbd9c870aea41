// Maps of any strides, and the copies of their rows with channels last in which the kernels compute.

#pragma once

#include "vectors.hpp"

namespace {

// Element (n, c, h, w) is at values[n * image + c * channel + h * row + w * pixel]. Without values there is no map.
template <typename T>
struct Map {
  T* values = nullptr;
  int64_t image = 0, channel = 0, row = 0, pixel = 0;

  T* at(int64_t n, int64_t h, int64_t w) const {
    return values ? values + n * image + h * row + w * pixel : nullptr;
  }
  // Whether kernels can use it as it is: channels last, rows of W pixels that follow each other.
  bool is_direct(int64_t W) const { return channel == 1 && row == W * pixel; }
  Map of_image(int64_t n) const { return {values ? values + n * image : nullptr, 0, channel, row, pixel}; }
  Map from_channel(int64_t c) const { return {values + c * channel, image, channel, row, pixel}; }
  operator Map<const T>() const { return {values, image, channel, row, pixel}; }
};

inline Map<float> channels_last(float* values, int64_t W, int64_t channels) {
  return {values, 0, 1, W * channels, channels};
}

// The pixels of some rows of an image: `pixels` of them at `first`, `channel` and `pixel` apart. In a contiguous map
// the rows are one line.
template <typename Work>
void each_line(const Map<const float>& map, int64_t row, int64_t end, int64_t W, Work work) {
  if (map.row == W * map.pixel) return work(row * W, (end - row) * W);
  for (int64_t h = row; h < end; ++h) work(h * W, W);
}

// Squares of LANES pixels and channels, in an order that touches few pages of memory at a time.
template <typename Work>
void each_square(int64_t pixels, int64_t channels, Work work) {
  constexpr int64_t CHUNK = 128;
  for (int64_t first = 0; first < pixels; first += CHUNK)
    for (int64_t c = 0; c < channels; c += VECTOR_LANES)
      for (int64_t p = first; p < std::min(first + CHUNK, pixels); p += VECTOR_LANES) work(p, c);
}

// Copies rows of an image into `to`, channels last, which begins at that row.
inline void gather_rows(const Map<const float>& map, int64_t channels, int64_t row, int64_t end, int64_t W, float* to) {
  constexpr int LANES = VECTOR_LANES;
  each_line(map, row, end, W, [&](int64_t start, int64_t pixels) {
    const float* from = map.values + start / W * map.row;
    float* const line = to + (start - row * W) * channels;
    each_square(pixels, channels, [&](int64_t p, int64_t c) {
        const int64_t height = std::min<int64_t>(LANES, channels - c), width = std::min<int64_t>(LANES, pixels - p);
        if (map.pixel == 1) {
          Vector<LANES> square[LANES]{};
          for (int i = 0; i < height; ++i) square[i] = load<LANES>(from + (c + i) * map.channel + p, width);
          transpose<LANES>(square);
          for (int i = 0; i < width; ++i) store<LANES>(square[i], line + (p + i) * channels + c, height);
        } else {
          for (int64_t i = 0; i < width; ++i)
            for (int64_t j = 0; j < height; ++j)
              line[(p + i) * channels + c + j] = from[(c + j) * map.channel + (p + i) * map.pixel];
        }
    });
  });
}

// Copies rows of `from`, channels last and beginning at that row, into an image, with the rows of another map added
// (none if it has no values), and after a ReLU if there is one.
inline void scatter_rows(const float* from, int64_t channels, int64_t row, int64_t end, int64_t W,
                         const Map<const float>& added, bool has_relu, const Map<float>& map) {
  constexpr int LANES = VECTOR_LANES;
  const bool vectors = map.pixel == 1 && map.row == W && (!added.values || (added.pixel == 1 && added.row == W));
  if (!vectors) {
    for (int64_t h = row; h < end; ++h)
      for (int64_t w = 0; w < W; ++w, from += channels)
        for (int64_t c = 0; c < channels; ++c) {
          float value = from[c];
          if (added.values) value += added.at(0, h, w)[c * added.channel];
          map.at(0, h, w)[c * map.channel] = has_relu && value < 0 ? 0 : value;
        }
    return;
  }
  const int64_t pixels = (end - row) * W;
  each_square(pixels, channels, [&](int64_t p, int64_t c) {
      const int64_t height = std::min<int64_t>(LANES, channels - c), width = std::min<int64_t>(LANES, pixels - p);
      Vector<LANES> square[LANES]{};
      for (int i = 0; i < width; ++i) square[i] = load<LANES>(from + (p + i) * channels + c, height);
      transpose<LANES>(square);
      for (int i = 0; i < height; ++i) {
        const int64_t at = row * W + p;
        if (added.values) square[i] += load<LANES>(added.values + (c + i) * added.channel + at, width);
        store<LANES>(has_relu ? relu(square[i]) : square[i], map.values + (c + i) * map.channel + at, width);
      }
  });
}

}  // namespace
