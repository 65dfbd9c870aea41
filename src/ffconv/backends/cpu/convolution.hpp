// The ordinary convolutions of an FFC: pixels for which the same taps of the kernel read inside of the map are one
// product, or tiles of pixels, see winograd.hpp. No missing path's zeros are multiplied but in one panel, and no map
// is padded or copied: beyond its border pixels of the map itself are read, or none.

#pragma once

#include "fft_2d.hpp"
#include "gemm.hpp"
#include "winograd.hpp"

namespace {

// A convolution's weight: that of tap (h, w) from input channel i to output channel o is at
// values[o * output + i * input + h * row + w * column]. Null if the convolution is missing.
template <typename T>
struct Filters {
  T* values = nullptr;
  int64_t output = 0, input = 0, row = 0, column = 0;

  // Whether a filter's taps follow each other, and then those of the next input channel, as in a contiguous weight.
  bool is_contiguous(int64_t height, int64_t width) const {
    return (column == 1 || width == 1) && (row == width || height == 1) && input == height * width;
  }
};

// What lies beyond the border of a map.
enum PaddingMode : int64_t { ZEROS, REFLECT, REPLICATE, CIRCULAR };

// A convolution along one axis of the map; `outputs` is the size of the result, `padding` is before the map.
struct Axis {
  int64_t size = 0, outputs = 0, kernel = 0, stride = 0, padding = 0, dilation = 0;
  PaddingMode mode = ZEROS;

  // The pixel of the map that is read at a place of the padded one, or -1 where that is zero.
  int64_t pixel(int64_t place) const {
    int64_t pixel = place - padding;
    if (pixel >= 0 && pixel < size) return pixel;
    if (mode == REFLECT) pixel = pixel < 0 ? -pixel : 2 * (size - 1) - pixel;
    if (mode == REPLICATE) pixel = pixel < 0 ? 0 : size - 1;
    if (mode == CIRCULAR) pixel += pixel < 0 ? size : -size;
    return pixel >= 0 && pixel < size ? pixel : -1;
  }

  // The window of inputs that is averaged for an output of the global channels: clipped to the map, maybe empty.
  int64_t window_start(int64_t output) const { return std::clamp<int64_t>(output * stride + offset(), 0, size); }
  int64_t window_end(int64_t output) const { return std::clamp<int64_t>((output + 1) * stride + offset(), 0, size); }
  bool pools() const { return stride > 1 || offset() != 0 || size != outputs; }

  // The pixel that a tap reads for an output, or -1.
  int64_t pixel(int64_t output, int64_t tap) const { return pixel(output * stride + tap * dilation); }

  // The output after the last of those, from this one on, for which the same taps read, each in steps of the stride.
  int64_t end_of_run(int64_t output, int64_t end) const {
    int64_t next = output + 1;
    while (next < end && follows(next, output)) ++next;
    return next;
  }

 private:
  int64_t offset() const { return dilation * (kernel - 1) / 2 - padding; }

  bool follows(int64_t next, int64_t output) const {
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t before = pixel(output, tap), after = pixel(next, tap);
      if (after != (before < 0 ? -1 : before + (next - output) * stride)) return false;
    }
    return true;
  }
};

// A square of pixels of image n of a map, from a place of the padded one on; null where that has zeros.
template <int SIDE>
void window(const Map<const float>& map, const Axis& height, const Axis& width, int64_t n, int64_t top, int64_t left,
            const float* (&pixels)[SIDE][SIDE]) {
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

// One image's maps. The residual may be missing.
struct ImageMaps {
  Map<const float> x, residual;
  Map<float> y;
  bool has_relu;
};

// y_l = l2l * x_l + g2l * x_g + bias and y_g = l2g * x_l + bias, each with the residual added.
// Channels of a map: the local ones, then the global ones.
struct ConvolutionJob {
  Axis height, width;
  int64_t local_in, global_in, local_out, global_out;
  Filters<const float> l2l, g2l, l2g;
  const float* bias;  // may be null
  bool has_relu;  // after all of it
};

// Whether tiles, see winograd.hpp, can make them.
inline bool suits_winograd(const ConvolutionJob& job) {
  const auto suits = [](const Axis& of) { return of.kernel == TAPS && of.stride == 1 && of.dilation == 1; };
  return suits(job.height) && suits(job.width);
}

// Whether tiles save more than their larger weights cost when so many images of a result have them packed once, and
// enough channels share the way to the points and back.
inline bool winograd_pays(int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t images) {
  constexpr int64_t COSTS = 800;  // in multiply-adds a weight, by measurement
  const int64_t saved = TAPS * TAPS * height * width - POINTS * TileGrid{height, width}.tiles();
  return images * saved >= COSTS && std::min(inputs, outputs) >= Packed::WIDTH;
}

// The convolutions of a job, or none, and the mixing of `hidden` channels into the global ones of the result, with
// their weights packed as one: columns of local outputs, then of global ones; in the depth, tap by tap, local inputs
// and then global ones, and at last the hidden channels. Each panel leaves out what it has no weights for. With
// Winograd's filtering, points take the place of the taps.
class Convolutions {
 public:
  // Pixels of the result, side by side or one below the other, that have the same taps.
  struct Run {
    int64_t top, left, pixels;  // the first one, and how many
    int64_t x_step;
    Rows<const float> h, residual;
    Rows<float> y;
  };

  // A thread's lists of runs, and of the parts of their products: with the global inputs, and without.
  struct RunLists {
    Run* runs;
    Part* parts[2];
    int64_t* ends;

    RunLists(int64_t most, int64_t taps, Arena& arena)
        : runs(arena.take<Run>(most)),
          parts{arena.take<Part>(most * (taps + 1)), arena.take<Part>(most * (taps + 1))},
          ends(arena.take<int64_t>(most + 1)) {}
  };

  // For so many images with the same packed weights.
  Convolutions(const ConvolutionJob* job, const float* mixing, int64_t hidden, int64_t images)
      : job(job),
        mixing(mixing),
        grid{job ? job->height.outputs : 0, job ? job->width.outputs : 0},
        hidden(hidden),
        depth(job ? job->local_in + job->global_in : 0),
        columns(job ? job->local_out + job->global_out : 0),
        winograd(job && suits_winograd(*job) && winograd_pays(grid.height, grid.width, depth, columns, images)),
        taps(job ? job->height.kernel * job->width.kernel : 0),
        places(winograd ? POINTS : taps) {}

  explicit operator bool() const { return job; }
  bool by_winograd() const { return winograd; }

  int64_t inputs() const { return depth; }
  int64_t panels() const { return (columns + Packed::WIDTH - 1) / Packed::WIDTH; }
  // For so many panels of the weight at a time.
  Packed memory(int64_t kept, Arena& arena) const { return {columns, places * depth + hidden, kept, arena}; }
  TileBlock tile_block(Arena& arena) const { return {winograd ? depth : 0, arena}; }
  RunLists run_lists(Arena& arena) const { return {job && !winograd ? most_runs() : 0, taps, arena}; }

  // Whether so many threads had better each read the whole weight than each the whole of so many maps, which for
  // tiles have to be written, too.
  bool maps_outweigh(int64_t images, int threads) const {
    const int64_t pixels = images * job->height.outputs * job->width.outputs;
    return threads == 1 || (pixels >= (winograd ? POINTS / 2 : taps) * columns && job->height.outputs >= 4 * threads);
  }

  // Whether a thread passes each panel once an image, and not once for each block of tiles.
  bool passes_once() const { return !winograd || grid.tiles() <= TileBlock::MOST; }

  // A row of the pooled global channels.
  void pool(const Map<const float>& x, int64_t row, float* to) const {
    const Axis &height = job->height, &width = job->width;
    const int64_t top = height.window_start(row), bottom = height.window_end(row), channels = job->global_in;
    for (int64_t column = 0; column < width.outputs; ++column, to += channels) {
      const int64_t left = width.window_start(column), right = width.window_end(column);
      std::fill_n(to, channels, 0.0f);
      for (int64_t h = top; h < bottom; ++h)
        for (int64_t w = left; w < right; ++w) {
          const float* from = x.at(0, h, w) + job->local_in;
          for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
        }
      const float factor = 1.0f / float(std::max<int64_t>(1, (bottom - top) * (right - left)));
      for (int64_t c = 0; c < channels; ++c) to[c] *= factor;
    }
  }

  void pack(int64_t panel, Packed& weight) const {
    const int64_t first = places - taps;
    pack_path(weight, panel, job->l2l, job->l2g, first, 0, job->local_in);
    if (has_local(panel)) pack_path(weight, panel, job->g2l, {}, first, job->local_in, job->global_in);
    if (winograd) taps_to_points(weight, panel, depth, inputs_of(panel));
    if (!has_global(panel)) return;
    const auto column = [&](int64_t c) {
      const bool local = c < job->local_out;
      return PackedColumn{local ? nullptr : mixing + (c - job->local_out) * hidden, 1, shift_of(c)};
    };
    weight.pack(panel, hidden, column, [&](int64_t k) { return places * depth + k; });
  }

  // Rows of the result of an image, from `row` to before `end`, and so of the weight's panels. The hidden channels lie
  // in `h`, a map as large as the result.
  void rows(const ImageMaps& maps, const float* h, int64_t row, int64_t end, const Packed& weight, int64_t first_panel,
            int64_t end_panel, const RunLists& lists) const {
    const int64_t runs = list_runs(maps, h, row, end, lists.runs);
    Part* ends[] = {lists.parts[0], lists.parts[1]};
    lists.ends[0] = 0;
    for (int64_t i = 0; i < runs; ++i) {
      add_parts(maps, lists.runs[i], depth, ends[0]);
      add_parts(maps, lists.runs[i], job->local_in, ends[1]);
      lists.ends[i + 1] = ends[0] - lists.parts[0];
    }
    const unsigned finish = SHIFT | (maps.residual.values ? ADD : STORE) | (maps.has_relu ? RELU : STORE);
    for (int64_t panel = first_panel; panel < end_panel; ++panel) {
      const Part* parts = lists.parts[has_local(panel) ? 0 : 1];
      for (int64_t i = 0; i < runs; ++i) {
        const Run& run = lists.runs[i];
        multiply(finish, parts + lists.ends[i], parts + lists.ends[i + 1] - (has_global(panel) ? 0 : 1), run.pixels,
                 weight, panel, run.y, run.residual);
      }
    }
  }

  // The same by Winograd's filtering: this thread's part of the tiles' rows, and of the panels, which may have to be
  // packed.
  void tiles(const ImageMaps& maps, const float* h, const Team& of_rows, const Team& of_panels, Packed& weight,
             bool packs, const TileBlock& block) const {
    const int64_t end = of_rows.end(grid.rows()) * grid.across();
    for (int64_t first = of_rows.first(grid.rows()) * grid.across(); first < end; first += TileBlock::MOST) {
      const int64_t count = std::min(TileBlock::MOST, end - first);
      for (int64_t tile = 0; tile < count; ++tile) transform_input(maps, first + tile, block, tile);
      of_panels.deal(panels(), [&](int64_t panel) {
        if (packs) pack(panel, weight);
        block.multiply(count, inputs_of(panel), weight, panel);
        for (int64_t tile = 0; tile < count; ++tile) transform_output(maps, first + tile, weight, panel, block, tile);
        if (mixes(panel)) add_hidden(maps, h, first, first + count, weight, panel, block);
      });
    }
  }

 private:
  bool has_local(int64_t panel) const { return panel * Packed::WIDTH < job->local_out; }
  bool has_global(int64_t panel) const { return (panel + 1) * Packed::WIDTH > job->local_out; }
  bool mixes(int64_t panel) const { return hidden && has_global(panel); }
  // The depth of a tap of this panel.
  int64_t inputs_of(int64_t panel) const { return has_local(panel) ? depth : job->local_in; }
  float shift_of(int64_t column) const { return job->bias ? job->bias[column] : 0.0f; }

  // The weights of all taps from `length` inputs, from number `input` on of a tap's depth.
  void pack_path(Packed& weight, int64_t panel, const Filters<const float>& to_local, const Filters<const float>& to_global, int64_t first,
                 int64_t input, int64_t length) const {
    const int64_t across = job->width.kernel;
    const auto column = [&](int64_t h, int64_t w, bool in_order) {
      return [this, &to_local, &to_global, h, w, in_order](int64_t c) {
        const bool local = c < job->local_out;
        const Filters<const float>& path = local ? to_local : to_global;
        const float* values = path.values;
        if (values) values += (local ? c : c - job->local_out) * path.output + h * path.row + w * path.column;
        return PackedColumn{values, 1, shift_of(c), in_order ? 1 : path.input};
      };
    };
    const auto in_order = [&](const Filters<const float>& path) {
      return !path.values || path.is_contiguous(job->height.kernel, across);
    };
    if (in_order(to_local) && in_order(to_global))
      return weight.pack(panel, taps * length, column(0, 0, true), [&](int64_t k) {
        return (first + uint32_t(k) % uint32_t(taps)) * depth + input + uint32_t(k) / uint32_t(taps);
      });
    for (int64_t tap = 0; tap < taps; ++tap)
      weight.pack(panel, length, column(tap / across, tap % across, false),
                  [&](int64_t k) { return (first + tap) * depth + input + k; });
  }

  // The taps', and that of the hidden channels.
  void add_parts(const ImageMaps& maps, const Run& run, int64_t inputs, Part*& end) const {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t h = job->height.pixel(run.top, tap / job->width.kernel);
      const int64_t w = job->width.pixel(run.left, tap % job->width.kernel);
      if (h >= 0 && w >= 0) *end++ = {maps.x.at(0, h, w), run.x_step, inputs, tap * depth};
    }
    *end++ = {run.h.first, run.h.step, hidden, places * depth};
  }

  template <typename Work>
  void each_rectangle(int64_t row, int64_t end, Work work) const {
    for (int64_t h = row, next_h; h < end; h = next_h) {
      next_h = job->height.end_of_run(h, end);
      for (int64_t w = 0, next_w; w < job->width.outputs; w = next_w) {
        next_w = job->width.end_of_run(w, job->width.outputs);
        work(h, next_h - h, w, next_w - w);
      }
    }
  }

  int64_t most_runs() const {
    int64_t count = 0;
    each_rectangle(0, job->height.outputs, [&](int64_t, int64_t rows, int64_t, int64_t columns) {
      count += std::min(rows, columns);
    });
    return count;
  }

  // Of a rectangle: row by row, or column by column where that is longer.
  int64_t list_runs(const ImageMaps& maps, const float* hidden_map, int64_t first, int64_t end, Run* runs) const {
    const Map<const float> h_map{hidden_map, 0, 1, job->width.outputs * hidden, hidden};
    int64_t count = 0;
    each_rectangle(first, end, [&](int64_t h, int64_t rows, int64_t w, int64_t columns) {
      const bool upright = rows > columns;
      const auto step = [&](const auto& map) { return upright ? map.row : map.pixel; };
      const int64_t x_step = step(maps.x) * (upright ? job->height.stride : job->width.stride);
      for (int64_t i = 0; i < (upright ? columns : rows); ++i) {
        const int64_t top = upright ? h : h + i, left = upright ? w + i : w;
        runs[count++] = {top, left, upright ? rows : columns, x_step,
                         {h_map.at(0, top, left), step(h_map)},
                         {maps.residual.at(0, top, left), step(maps.residual)},
                         {maps.y.at(0, top, left), step(maps.y)}};
      }
    });
    return count;
  }

  void transform_input(const ImageMaps& maps, int64_t number, const TileBlock& block, int64_t tile) const {
    const float* pixels[READ][READ];
    window(maps.x, job->height, job->width, 0, grid.top(number), grid.left(number), pixels);
    block.transform_input(tile, pixels);
  }

  // At the map's end a tile makes the pixels that there are.
  void transform_output(const ImageMaps& maps, int64_t number, const Packed& weight, int64_t panel,
                        const TileBlock& block, int64_t tile) const {
    constexpr int LANES = Packed::LANES;
    using V = Vector<LANES>;
    const int64_t top = grid.top(number), left = grid.left(number);
    const int64_t bottom = std::min(top + TILE, job->height.outputs), right = std::min(left + TILE, job->width.outputs);
    const bool ends = maps.has_relu && !mixes(panel);
    for (int64_t lane = 0; lane < weight.columns_of(panel); lane += LANES) {
      const int64_t column = panel * Packed::WIDTH + lane, count = columns - column;
      const V shift = load<LANES>(weight.shift(panel) + lane, LANES);
      V pixels[TILE][TILE];
      block.transform_output(tile, lane, pixels);
      for (int64_t row = top; row < bottom; ++row)
        for (int64_t w = left; w < right; ++w) {
          const float* residual = maps.residual.at(0, row, w);
          V value = pixels[row - top][w - left] + shift;
          if (residual) value += load<LANES>(residual + column, count);
          if (ends) value = relu(value);
          float* to = maps.y.at(0, row, w) + column;
          if (mixes(panel)) to = block.pixels_of(row - top, tile) + (w - left) * Packed::WIDTH + lane;
          store<LANES>(value, to, count);
        }
    }
  }

  // The pixels that a block of tiles, from number `first` to before `end`, has made, with what the hidden channels add.
  void add_hidden(const ImageMaps& maps, const float* h, int64_t first, int64_t end, const Packed& weight,
                  int64_t panel, const TileBlock& block) const {
    const unsigned finish = ADD | (maps.has_relu ? RELU : STORE);
    for (int64_t number = first, next; number < end; number = next) {
      next = std::min(end, (number / grid.across() + 1) * grid.across());
      const int64_t top = grid.top(number), left = grid.left(number);
      const int64_t bottom = std::min(top + TILE, job->height.outputs);
      const int64_t pixels = std::min((next - number) * TILE, job->width.outputs - left);
      for (int64_t row = top; row < bottom; ++row) {
        const Part part{h + (row * job->width.outputs + left) * hidden, hidden, hidden, places * depth};
        multiply_panel(finish, &part, &part + 1, pixels, weight, panel,
                       {maps.y.at(0, row, left) + panel * Packed::WIDTH, maps.y.pixel},
                       {block.pixels_of(row - top, number - first), Packed::WIDTH});
      }
    }
  }

  const ConvolutionJob* job;
  const float* mixing;
  const TileGrid grid;
  const int64_t hidden, depth, columns;
  const bool winograd;
  const int64_t taps, places;
};

}  // namespace
