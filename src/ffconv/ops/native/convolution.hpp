// The ordinary convolutions of an FFC: pixels for which the same taps of the kernel read inside of the map are one
// product. No missing path's zeros are multiplied but in one panel, and no map is padded or copied.

#pragma once

#include <vector>

#include "planes.hpp"
#include "products.hpp"

namespace {

// A convolution's weight: that of input channel i at tap t for output channel o is at values[o * output + t * tap + i].
// Null if the convolution is missing.
template <typename T>
struct Filters {
  const T* values;
  int64_t output, tap;
};

// What a convolution does along one axis of the map; `outputs` is the size of the result.
struct Axis {
  int64_t size, outputs, kernel, stride, padding, dilation;

  // The first of the taps that read inside of the map for an output, and the one after the last.
  int64_t first_tap(int64_t output) const {
    return std::min(kernel, (std::max<int64_t>(0, padding - output * stride) + dilation - 1) / dilation);
  }
  int64_t end_tap(int64_t output) const {
    const int64_t left = std::max<int64_t>(0, size + padding - output * stride);
    return std::max(first_tap(output), std::min(kernel, (left + dilation - 1) / dilation));
  }
  // The output after the last of those, from this one on, that have the same taps.
  int64_t end_of_run(int64_t output, int64_t end) const {
    int64_t next = output + 1;
    while (next < end && first_tap(next) == first_tap(output) && end_tap(next) == end_tap(output)) ++next;
    return next;
  }
};

// A map, or none.
template <typename T>
struct Map {
  T* values;
  Layout layout;

  T* at(int64_t n, int64_t row, int64_t column) const {
    return values ? values + n * layout.image + row * layout.row + column * layout.pixel : nullptr;
  }
};

// The maps of one call. `pooled` is the input of the Spectral Transform; `onto` may be missing.
template <typename T>
struct ConvolutionMaps {
  Map<const T> x, pooled, onto;
  Map<T> y;
  int64_t N;
};

// y_l = l2l * x_l + g2l * x_g + bias and y_g = l2g * x_l + bias, each with `onto` added, as the caller fills it in.
// Channels of a map: the local ones, then the global ones.
template <typename T>
struct ConvolutionJob {
  Axis height, width;
  int64_t local_in, global_in, local_out, global_out;
  Filters<T> l2l, g2l, l2g;
  const T* bias;  // may be null
  int64_t relu;   // whether all of y then goes through one
};

// The convolutions of a job, or none. Their weights are packed as one: columns of local outputs, then of global ones;
// in the depth, tap by tap, local inputs and then global ones. Panels of global columns alone leave those out.
template <typename T>
class Convolutions {
 public:
  Convolutions(const ConvolutionJob<T>* job, const ConvolutionMaps<T>* maps, Pieces& pieces)
      : job(job),
        maps(maps),
        taps(job ? job->height.kernel * job->width.kernel : 0),
        depth(job ? job->local_in + job->global_in : 0),
        weight(Packed<T>::of(job ? job->local_out + job->global_out : 0, taps * depth, pieces)) {}

  explicit operator bool() const { return job; }
  bool relu() const { return job && job->relu; }
  int64_t panels() const { return weight.panels(); }

  // Whether so many threads had better each read the whole weight than each the whole map.
  bool maps_outweigh(int threads) const {
    const int64_t pixels = job->height.outputs * job->width.outputs;
    return threads == 1 || (pixels >= taps * weight.columns && job->height.outputs >= 4 * threads);
  }

  void pack(const Team& team) {
    team.each(weight.panels(), [&](int64_t panel) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        pack_path(panel, tap, job->l2l, job->l2g, 0, job->local_in);
        pack_path(panel, tap, job->g2l, {}, job->local_in, depth_of(panel) - job->local_in);
      }
    });
  }

  // Rows of the result of image n, from `row` to before `end`, and so of the panels. The global channels do not go
  // through the ReLU yet: something is still to be added to them.
  void rows(int64_t n, int64_t row, int64_t end, int64_t first_panel, int64_t end_panel) const {
    const std::vector<Run> runs = runs_of(n, row, end);
    std::vector<Part> parts;
    std::vector<size_t> ends;
    for (const Run& run : runs) {
      add_parts(parts, run);
      ends.push_back(parts.size());
    }
    for (int64_t panel = first_panel; panel < end_panel; ++panel)
      for (size_t i = 0; i < runs.size(); ++i)
        convolve(runs[i], parts.data() + (i ? ends[i - 1] : 0), parts.data() + ends[i], panel);
  }

 private:
  // Pixels of the result, side by side or one below the other, that have the same taps.
  struct Run {
    const T *x, *onto;  // where tap 0 reads for the first one; what is added to that
    T* y;
    int64_t pixels, x_step, onto_step, y_step, first_row, end_row, first_column, end_column;
  };

  int64_t first_column(int64_t panel) const { return panel * Packed<T>::WIDTH; }
  int64_t depth_of(int64_t panel) const { return first_column(panel) < job->local_out ? depth : job->local_in; }

  // One tap's weights from `length` inputs.
  void pack_path(int64_t panel, int64_t tap, const Filters<T>& to_local, const Filters<T>& to_global, int64_t start,
                 int64_t length) {
    const auto column = [&](int64_t c) {
      const bool local = c < job->local_out;
      const Filters<T>& path = local ? to_local : to_global;
      const T* values = path.values;
      if (values) values += (local ? c : c - job->local_out) * path.output + tap * path.tap;
      return PackedColumn<T>{values, 1, job->bias ? job->bias[c] : T(0)};
    };
    weight.pack(panel, length, column, [&](int64_t k) { return tap * depth + start + k; });
  }

  void add_parts(std::vector<Part>& parts, const Run& run) const {
    const Layout& of_x = maps->x.layout;
    const int64_t down = job->height.dilation * of_x.row, right = job->width.dilation * of_x.pixel;
    for (int64_t row = run.first_row; row < run.end_row; ++row)
      for (int64_t column = run.first_column; column < run.end_column; ++column)
        parts.push_back({row * down + column * right, (row * job->width.kernel + column) * depth});
  }

  void convolve(const Run& run, const Part* parts, const Part* parts_end, int64_t panel) const {
    const bool relu = job->relu && first_column(panel) < job->local_out;
    const bool mixed = first_column(panel + 1) > job->local_out;
    const unsigned finish = SHIFT | (run.onto ? ADD : STORE) | (relu && !mixed ? RELU : STORE);
    multiply(finish, run.x, run.x_step, run.pixels, weight, panel, parts, parts_end, depth_of(panel), run.y, run.y_step,
             run.onto, run.onto_step);
    if (!relu || !mixed) return;
    for (int64_t pixel = 0; pixel < run.pixels; ++pixel) {
      T* y = run.y + pixel * run.y_step;
      for (int64_t c = first_column(panel); c < job->local_out; ++c) y[c] = y[c] < T(0) ? T(0) : y[c];
    }
  }

  std::vector<Run> runs_of(int64_t n, int64_t first, int64_t end) const {
    const Axis &height = job->height, &width = job->width;
    std::vector<Run> runs;
    for (int64_t h = first, next_h; h < end; h = next_h) {
      next_h = height.end_of_run(h, end);
      for (int64_t w = 0, next_w; w < width.outputs; w = next_w) {
        next_w = width.end_of_run(w, width.outputs);
        add_runs(runs, n, h, next_h - h, w, next_w - w);
      }
    }
    return runs;
  }

  // Of a rectangle: row by row, or column by column where that is longer.
  void add_runs(std::vector<Run>& runs, int64_t n, int64_t h, int64_t rows, int64_t w, int64_t columns) const {
    const Axis &height = job->height, &width = job->width;
    const Layout &of_x = maps->x.layout, &of_onto = maps->onto.layout, &of_y = maps->y.layout;
    const bool upright = rows > columns;
    const int64_t x_right = width.stride * of_x.pixel, x_down = height.stride * of_x.row;
    for (int64_t i = 0; i < (upright ? columns : rows); ++i) {
      const int64_t top = upright ? h : h + i, left = upright ? w + i : w;
      const T* x = maps->x.at(n, top * height.stride - height.padding, left * width.stride - width.padding);
      runs.push_back({x, maps->onto.at(n, top, left), maps->y.at(n, top, left), upright ? rows : columns,
                      upright ? x_down : x_right, upright ? of_onto.row : of_onto.pixel,
                      upright ? of_y.row : of_y.pixel, height.first_tap(top), height.end_tap(top),
                      width.first_tap(left), width.end_tap(left)});
    }
  }

  const ConvolutionJob<T>* job;
  const ConvolutionMaps<T>* maps;
  const int64_t taps, depth;
  Packed<T> weight;
};

}  // namespace
