// The ordinary convolutions of an FFC: pixels for which the same taps of the kernel read inside of the map are one
// product, or tiles of pixels, see winograd.hpp. No missing path's zeros are multiplied but in one panel, and no map
// is padded or copied: beyond its border pixels of the map itself are read, or none.

#pragma once

#include <vector>

#include "planes.hpp"
#include "products.hpp"
#include "winograd.hpp"

namespace {

// A convolution's weight: that of input channel i at tap t for output channel o is at
// values[o * output + t * tap + i * input]. Null if the convolution is missing.
template <typename T>
struct Filters {
  const T* values;
  int64_t output, tap, input;
};

// What lies beyond the border of a map.
enum PaddingMode : int64_t { ZEROS, REFLECT, REPLICATE, CIRCULAR };

// What a convolution does along one axis of the map; `outputs` is the size of the result, `padding` is before the map.
struct Axis {
  int64_t size, outputs, kernel, stride, padding, dilation;
  PaddingMode mode;

  // The pixel of the map that is read at a place of the padded one, or -1 where that is zero.
  int64_t pixel(int64_t place) const {
    int64_t pixel = place - padding;
    if (pixel >= 0 && pixel < size) return pixel;
    if (mode == REFLECT) pixel = pixel < 0 ? -pixel : 2 * (size - 1) - pixel;
    if (mode == REPLICATE) pixel = pixel < 0 ? 0 : size - 1;
    if (mode == CIRCULAR) pixel += pixel < 0 ? size : -size;
    return pixel >= 0 && pixel < size ? pixel : -1;
  }

  // The pixel that a tap reads for an output, or -1.
  int64_t pixel(int64_t output, int64_t tap) const { return pixel(output * stride + tap * dilation); }

  // The output after the last of those, from this one on, for which the same taps read, each in steps of the stride.
  int64_t end_of_run(int64_t output, int64_t end) const {
    int64_t next = output + 1;
    while (next < end && follows(next, output)) ++next;
    return next;
  }

 private:
  bool follows(int64_t next, int64_t output) const {
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t before = pixel(output, tap), after = pixel(next, tap);
      if (after != (before < 0 ? -1 : before + (next - output) * stride)) return false;
    }
    return true;
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

// A square of pixels of image n of a map, from a place of the padded one on; null where that has zeros.
template <typename T, int SIDE>
void window(const Map<const T>& map, const Axis& height, const Axis& width, int64_t n, int64_t top, int64_t left,
            const T* (&pixels)[SIDE][SIDE]) {
  for (int64_t i = 0; i < SIDE; ++i)
    for (int64_t j = 0; j < SIDE; ++j) {
      const int64_t row = height.pixel(top + i), column = width.pixel(left + j);
      pixels[i][j] = row >= 0 && column >= 0 ? map.at(n, row, column) : nullptr;
    }
}

// The tiles of a result of so many pixels, row by row.
struct TileGrid {
  int64_t height, width;

  int64_t rows() const { return (height + TILE - 1) / TILE; }
  int64_t across() const { return (width + TILE - 1) / TILE; }
  int64_t tiles() const { return rows() * across(); }
  // The first pixel that a tile makes.
  int64_t top(int64_t number) const { return number / across() * TILE; }
  int64_t left(int64_t number) const { return number % across() * TILE; }
};

// The maps of one call. `pooled` is the input of the Spectral Transform: if it is missing, the means of the global
// channels of x in windows of the stride. `onto` may be missing, too.
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

// Whether tiles, see winograd.hpp, can make them.
template <typename T>
bool suits_tiles(const ConvolutionJob<T>& job) {
  const auto suits = [](const Axis& of) { return of.kernel == TAPS && of.stride == 1 && of.dilation == 1; };
  return suits(job.height) && suits(job.width);
}

// Whether tiles save more than their larger weights cost when so many images of a result have them packed once, and
// enough channels share the way to the points and back.
template <typename T>
bool pays_in_tiles(int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t images) {
  constexpr int64_t COSTS = 800;  // in multiply-adds a weight, by measurement
  const int64_t saved = TAPS * TAPS * height * width - POINTS * TileGrid{height, width}.tiles();
  return images * saved >= COSTS && std::min(inputs, outputs) >= Packed<T>::WIDTH;
}

// The convolutions of a job, or none, and the mixing of `hidden` channels into the global ones of the result, with
// their weights packed as one: columns of local outputs, then of global ones; in the depth, tap by tap, local inputs
// and then global ones, and at last the hidden channels. Each panel leaves out what it has no weights for. In tiles,
// points take the place of the taps.
template <typename T>
class Convolutions {
 public:
  // For so many images with the same packed weights.
  Convolutions(const ConvolutionJob<T>* job, const ConvolutionMaps<T>* maps, const T* mixing, int64_t hidden,
               int64_t images)
      : job(job),
        maps(maps),
        mixing(mixing),
        grid{job ? job->height.outputs : 0, job ? job->width.outputs : 0},
        hidden(hidden),
        depth(job ? job->local_in + job->global_in : 0),
        columns(job ? job->local_out + job->global_out : 0),
        tiled(job && suits_tiles(*job) && pays_in_tiles<T>(grid.height, grid.width, depth, columns, images)),
        taps(job ? job->height.kernel * job->width.kernel : 0),
        places(tiled ? POINTS : taps) {}

  explicit operator bool() const { return job; }
  bool by_tiles() const { return tiled; }  // or by taps

  int64_t panels() const { return (columns + Packed<T>::WIDTH - 1) / Packed<T>::WIDTH; }
  // For so many panels of the weight at a time.
  Packed<T> memory(int64_t kept, Pieces& pieces) const { return {columns, places * depth + hidden, kept, pieces}; }
  TileBlock<T> tile_block(Pieces& pieces) const { return {tiled ? depth : 0, pieces}; }

  // Whether so many threads had better each read the whole weight than each the whole of so many maps, which for
  // tiles have to be written, too.
  bool maps_outweigh(int64_t images, int threads) const {
    const int64_t pixels = images * job->height.outputs * job->width.outputs;
    return threads == 1 || (pixels >= (tiled ? POINTS / 2 : taps) * columns && job->height.outputs >= 4 * threads);
  }

  // Whether a thread passes each panel once an image, and not once for each block of tiles.
  bool passes_once() const { return !tiled || grid.tiles() <= TileBlock<T>::MOST; }

  bool pools() const { return job && !maps->pooled.values && job->height.stride * job->width.stride > 1; }
  int64_t pooled_row() const { return job ? job->width.outputs * job->global_in : 0; }

  // The row of the pooled map of image n. At the map's end a window has the pixels that there are.
  void pool(int64_t n, int64_t row, T* to) const {
    const Axis &height = job->height, &width = job->width;
    const int64_t top = row * height.stride, bottom = std::min(top + height.stride, height.size);
    for (int64_t column = 0; column < width.outputs; ++column, to += job->global_in) {
      const int64_t left = column * width.stride, right = std::min(left + width.stride, width.size);
      std::fill_n(to, job->global_in, T(0));
      for (int64_t h = top; h < bottom; ++h)
        for (int64_t w = left; w < right; ++w) {
          const T* from = maps->x.at(n, h, w) + job->local_in;
          for (int64_t c = 0; c < job->global_in; ++c) to[c] += from[c];
        }
      const T factor = T(1) / T((bottom - top) * (right - left));
      for (int64_t c = 0; c < job->global_in; ++c) to[c] *= factor;
    }
  }

  void pack(int64_t panel, Packed<T>& weight) const {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t place = (places - taps + tap) * depth;
      pack_path(weight, panel, tap, job->l2l, job->l2g, place, job->local_in);
      if (has_local(panel)) pack_path(weight, panel, tap, job->g2l, {}, place + job->local_in, job->global_in);
    }
    if (tiled) taps_to_points(weight, panel, depth, inputs_of(panel));
    if (has_global(panel)) pack_path(weight, panel, 0, {}, {mixing, hidden, 0, 1}, places * depth, hidden);
  }

  // Rows of the result of image n, from `row` to before `end`, and so of the weight's panels. The hidden channels lie
  // in `h`, a map as large as the result.
  void rows(int64_t n, const T* h, int64_t row, int64_t end, const Packed<T>& weight, int64_t first_panel,
            int64_t end_panel) const {
    const std::vector<Run> runs = runs_of(n, h, row, end);
    std::vector<Part<T>> parts[2];  // with the global inputs, and without
    std::vector<size_t> ends{0};
    for (const Run& run : runs) {
      add_parts(parts[0], run, depth);
      add_parts(parts[1], run, job->local_in);
      ends.push_back(parts[0].size());
    }
    const unsigned finish = SHIFT | (maps->onto.values ? ADD : STORE) | (job->relu ? RELU : STORE);
    for (int64_t panel = first_panel; panel < end_panel; ++panel) {
      const Part<T>* of_panel = parts[has_local(panel) ? 0 : 1].data();
      for (size_t i = 0; i < runs.size(); ++i)
        multiply(finish, of_panel + ends[i], of_panel + ends[i + 1] - (has_global(panel) ? 0 : 1), runs[i].pixels,
                 weight, panel, runs[i].y, runs[i].onto);
    }
  }

  // The same by tiles: this thread's part of their rows, and of the panels, which may have to be packed.
  void tiles(int64_t n, const T* h, const Team& of_rows, const Team& of_panels, Packed<T>& weight, bool packs,
                const TileBlock<T>& block) const {
    const int64_t end = of_rows.end(grid.rows()) * grid.across();
    for (int64_t first = of_rows.first(grid.rows()) * grid.across(); first < end; first += TileBlock<T>::MOST) {
      const int64_t count = std::min(TileBlock<T>::MOST, end - first);
      for (int64_t tile = 0; tile < count; ++tile) enter(n, first + tile, block, tile);
      of_panels.deal(panels(), [&](int64_t panel) {
        if (packs) pack(panel, weight);
        block.multiply(count, inputs_of(panel), weight, panel);
        for (int64_t tile = 0; tile < count; ++tile) leave(n, first + tile, weight, panel, block, tile);
        if (mixes(panel)) add_hidden(n, h, first, first + count, weight, panel, block);
      });
    }
  }

 private:
  // Pixels of the result, side by side or one below the other, that have the same taps.
  struct Run {
    int64_t n, top, left, pixels;  // the first one, and how many
    int64_t x_step;
    Rows<const T> h, onto;  // the hidden channels, what is added
    Rows<T> y;
  };

  bool has_local(int64_t panel) const { return panel * Packed<T>::WIDTH < job->local_out; }
  bool has_global(int64_t panel) const { return (panel + 1) * Packed<T>::WIDTH > job->local_out; }
  bool mixes(int64_t panel) const { return hidden && has_global(panel); }
  // The depth of a tap of this panel.
  int64_t inputs_of(int64_t panel) const { return has_local(panel) ? depth : job->local_in; }

  // The weights of one tap from `length` inputs, from a place of the depth on.
  void pack_path(Packed<T>& weight, int64_t panel, int64_t tap, const Filters<T>& to_local,
                 const Filters<T>& to_global, int64_t place, int64_t length) const {
    const auto column = [&](int64_t c) {
      const bool local = c < job->local_out;
      const Filters<T>& path = local ? to_local : to_global;
      const T* values = path.values;
      if (values) values += (local ? c : c - job->local_out) * path.output + tap * path.tap;
      return PackedColumn<T>{values, 1, job->bias ? job->bias[c] : T(0), path.input};
    };
    weight.pack(panel, length, column, [&](int64_t k) { return place + k; });
  }

  // The taps', and that of the hidden channels.
  void add_parts(std::vector<Part<T>>& parts, const Run& run, int64_t inputs) const {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t h = job->height.pixel(run.top, tap / job->width.kernel);
      const int64_t w = job->width.pixel(run.left, tap % job->width.kernel);
      if (h >= 0 && w >= 0) parts.push_back({maps->x.at(run.n, h, w), run.x_step, inputs, tap * depth});
    }
    parts.push_back({run.h.first, run.h.step, hidden, places * depth});
  }

  std::vector<Run> runs_of(int64_t n, const T* hidden_map, int64_t first, int64_t end) const {
    const Axis &height = job->height, &width = job->width;
    std::vector<Run> runs;
    for (int64_t h = first, next_h; h < end; h = next_h) {
      next_h = height.end_of_run(h, end);
      for (int64_t w = 0, next_w; w < width.outputs; w = next_w) {
        next_w = width.end_of_run(w, width.outputs);
        add_runs(runs, n, hidden_map, h, next_h - h, w, next_w - w);
      }
    }
    return runs;
  }

  // Of a rectangle: row by row, or column by column where that is longer.
  void add_runs(std::vector<Run>& runs, int64_t n, const T* hidden_map, int64_t h, int64_t rows, int64_t w,
                int64_t columns) const {
    const Axis &height = job->height, &width = job->width;
    const bool upright = rows > columns;
    const auto step = [&](const Layout& of) { return upright ? of.row : of.pixel; };
    const Layout& of_x = maps->x.layout;
    const int64_t x_step = upright ? height.stride * of_x.row : width.stride * of_x.pixel;
    const Map<const T> of_hidden{hidden_map, {0, width.outputs * hidden, hidden}};
    for (int64_t i = 0; i < (upright ? columns : rows); ++i) {
      const int64_t top = upright ? h : h + i, left = upright ? w + i : w;
      runs.push_back({n, top, left, upright ? rows : columns, x_step,
                      {of_hidden.at(n, top, left), step(of_hidden.layout)},
                      {maps->onto.at(n, top, left), step(maps->onto.layout)},
                      {maps->y.at(n, top, left), step(maps->y.layout)}});
    }
  }

  void enter(int64_t n, int64_t number, const TileBlock<T>& block, int64_t tile) const {
    const T* pixels[READ][READ];
    window(maps->x, job->height, job->width, n, grid.top(number), grid.left(number), pixels);
    block.enter(tile, pixels);
  }

  // At the map's end a tile makes the pixels that there are.
  void leave(int64_t n, int64_t number, const Packed<T>& weight, int64_t panel, const TileBlock<T>& block,
             int64_t tile) const {
    constexpr int LANES = Packed<T>::LANES;
    using V = typename Vector<T, LANES>::type;
    const int64_t top = grid.top(number), left = grid.left(number);
    const int64_t bottom = std::min(top + TILE, job->height.outputs), right = std::min(left + TILE, job->width.outputs);
    const bool ends = job->relu && !mixes(panel);
    for (int64_t lane = 0; lane < weight.columns_of(panel); lane += LANES) {
      const int64_t column = panel * Packed<T>::WIDTH + lane, count = columns - column;
      const V shift = load<T, LANES>(weight.shift(panel) + lane, LANES);
      V pixels[TILE][TILE];
      block.leave(tile, lane, pixels);
      for (int64_t row = top; row < bottom; ++row)
        for (int64_t w = left; w < right; ++w) {
          const T* onto = maps->onto.at(n, row, w);
          V value = pixels[row - top][w - left] + shift;
          if (onto) value += load<T, LANES>(onto + column, count);
          if (ends) value = rectified(value);
          T* to = maps->y.at(n, row, w) + column;
          if (mixes(panel)) to = block.pixels_of(row - top, tile) + (w - left) * Packed<T>::WIDTH + lane;
          store<T, LANES>(value, to, count);
        }
    }
  }

  // The pixels that a block of tiles, from number `first` to before `end`, has made, with what the hidden channels add.
  void add_hidden(int64_t n, const T* h, int64_t first, int64_t end, const Packed<T>& weight, int64_t panel,
                  const TileBlock<T>& block) const {
    const Map<const T> of_hidden{h, {0, job->width.outputs * hidden, hidden}};
    const unsigned finish = ADD | (job->relu ? RELU : STORE);
    for (int64_t number = first, next; number < end; number = next) {
      next = std::min(end, (number / grid.across() + 1) * grid.across());
      const int64_t top = grid.top(number), left = grid.left(number);
      const int64_t bottom = std::min(top + TILE, job->height.outputs);
      const int64_t pixels = std::min((next - number) * TILE, job->width.outputs - left);
      for (int64_t row = top; row < bottom; ++row) {
        const Part<T> part{of_hidden.at(n, row, left), hidden, hidden, places * depth};
        multiply_panel(finish, &part, &part + 1, pixels, weight, panel,
                       {maps->y.at(n, row, left) + panel * Packed<T>::WIDTH, maps->y.layout.pixel},
                       {block.pixels_of(row - top, number - first), Packed<T>::WIDTH});
      }
    }
  }

  const ConvolutionJob<T>* job;
  const ConvolutionMaps<T>* maps;
  const T* mixing;
  const TileGrid grid;
  const int64_t hidden, depth, columns;
  const bool tiled;
  const int64_t taps, places;
};

}  // namespace
