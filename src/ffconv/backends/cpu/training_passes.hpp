// The phases of a Spectral Transform in training, for one image each.

#pragma once

#include "training_state.hpp"

namespace {

// What one thread does for images; its sums and its gradients of weights.
template <int LANES>
class ImageTraining {
 public:
  using V = Vector<LANES>;
  using Maps = TrainingMemory<LANES>;
  using P = Planes<LANES>;

  Moments<LANES> conv1_moments, fu_moments, lfu_moments;
  GradientSums conv1_sums, fu_sums, lfu_sums;
  OuterCopies copies;
  // Rows are the layer's channels out; spectral ones are in the order of the planes.
  OuterSum grad_conv1, grad_fu, grad_lfu, grad_conv2;

  ImageTraining(const TrainingState<LANES>& state, bool backward, Arena& arena)
      : conv1_moments(state.channels, arena),
        fu_moments(state.mixed, arena),
        lfu_moments(state.mixed, arena),
        conv1_sums(state.channels, arena),
        fu_sums(state.mixed, arena),
        lfu_sums(state.mixed, arena),
        copies(backward ? std::max(state.mixed, state.job.C_out) : 0, arena),
        grad_conv1(sum(backward && !state.is_fourier_unit(), state.channels, state.job.C_in, arena)),
        grad_fu(sum(backward, state.mixed, 2 * LANES * state.whole.blocks, arena)),
        grad_lfu(sum(backward && state.has_lfu(), state.mixed, 2 * LANES * state.quadrants.blocks, arena)),
        grad_conv2(sum(backward && !state.is_fourier_unit(), state.job.C_out, state.channels, arena)),
        state(state),
        job(state.job),
        channels(state.channels),
        mixed(state.mixed),
        lines(std::max(job.H, job.W), arena),
        opened(arena.take(std::max(state.whole.group_size(), state.quadrants.group_size()))),
        closed(arena.take(std::max(state.whole.group_size(), state.quadrants.group_size()))),
        rows(arena.take(2 * job.W * std::max(channels, LANES * state.quadrants.blocks))),
        copied(arena.take(2 * job.W * (is_direct(job.x) && is_direct(job.y) && is_direct(job.grad_x)
                                           ? 0
                                           : std::max(job.C_in, job.C_out)))) {
    if (!arena.start) return;
    for (OuterSum* sum : {&grad_conv1, &grad_fu, &grad_lfu, &grad_conv2}) sum->clear();
  }

  // Forward, first phase: what bn1 reads.
  void enter(int64_t n, const Team& team) {
    if (state.is_fourier_unit()) return;
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      float* to = job.conv1.read + (n * state.pixels() + row * job.W) * channels;
      const Map<const float> x = read_rows(job.x, n, job.C_in, row, count);
      multiply_all(STORE, x.values, x.pixel, count * job.W, state.conv1, to, channels);
      if (job.conv1.by_batch) conv1_moments.add(to, count * job.W);
    });
    team.wait();
  }

  // Second phase: what the units' norms read.
  void mix(int64_t n, const Maps& maps, const Team& team) {
    open_activated(n, maps, team);
    mix_columns(maps.whole, state.fu, job.fu, n * state.fu_image(), fu_moments, team);
    if (state.has_lfu())
      mix_columns(maps.quadrants, state.lfu, job.lfu, n * state.lfu_image(), lfu_moments, team);
    team.wait();
  }

  // Third phase: the result.
  void leave(int64_t n, const Maps& maps, const Team& team) {
    close_spectra(n, maps, team);
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      const Map<float> y = rows_to_write(job.y, n, job.C_out, row);
      if (state.is_fourier_unit()) {
        invert_rows(maps.whole, row, y);
      } else {
        sum_parts(n, maps, row, count);
        const unsigned finish = job.adds && is_direct(job.y) ? ADD : STORE;
        multiply_all(finish, rows, channels, count * job.W, state.conv2, y.values, y.pixel);
      }
      write_rows(job.y, n, job.C_out, row, count, job.adds);
    });
    team.wait();
  }

  // Backward, first phase: the gradients of what the units' norms give, and of conv2's weight.
  void leave_back(int64_t n, const Maps& maps, const Team& team) {
    if (!state.is_fourier_unit()) close_spectra(n, maps, team);
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      const Map<const float> y = read_rows(job.y, n, job.C_out, row, count);
      if (state.is_fourier_unit()) return transform_rows(maps.whole, row, count, y);
      const int64_t pixels = count * job.W;
      float* grad = conv1_grad(n, row);
      sum_parts(n, maps, row, count);
      multiply_all(STORE, y.values, y.pixel, pixels, state.conv2, grad, channels);
      grad_conv2.add(y.values, y.pixel, rows, channels, pixels, copies);
      lines.rfft_rows(maps.whole, row, grad, count > 1 ? grad + job.W * channels : nullptr, channels);
    });
    team.wait();
    gate_columns(maps.whole, state.fu_norm, job.fu, n * state.fu_image(), fu_sums, team);
    if (state.has_lfu()) {
      each_pair(team, maps.quadrants.H, [&](int64_t row, int64_t count) { open_tiles(n, maps, row, count); });
      team.wait();
      gate_columns(maps.quadrants, state.lfu_norm, job.lfu, n * state.lfu_image(), lfu_sums, team);
    }
    team.wait();
  }

  // Second phase: the gradients of what bn1 gives, and of the units' weights.
  void mix_back(int64_t n, const Maps& maps, const Team& team) {
    open_activated(n, maps, team);
    mix_columns_back(maps.whole, state.fu, state.fu_norm, job.fu, n * state.fu_image(), grad_fu, team);
    if (state.has_lfu()) {
      mix_columns_back(maps.quadrants, state.lfu, state.lfu_norm, job.lfu, n * state.lfu_image(),
                       grad_lfu, team);
      team.wait();
      // Quadrants of odd sides meet in the last row: one thread alone adds them.
      if (team.rank == 0)
        each_pair(Team{0, 1}, maps.quadrants.H,
                  [&](int64_t row, int64_t count) { close_quadrants_back(n, maps, row, count); });
    }
    team.wait();
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      if (state.is_fourier_unit()) {
        invert_rows(maps.whole, row, rows_to_write(job.grad_x, n, job.C_in, row));
        return write_rows(job.grad_x, n, job.C_in, row, count, false);
      }
      float* grad = conv1_grad(n, row);
      const float* read = conv1_read(n, row);
      lines.irfft_rows(maps.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
        const int64_t at = (r * job.W + w) * channels + channel;
        store<LANES>(value + load<LANES>(grad + at, LANES), grad + at, LANES);
      });
      state.conv1_norm.gate(grad, read, count * job.W, float(1), conv1_sums);
    });
    team.wait();
  }

  // Third phase: the gradients of x and of conv1's weight.
  void enter_back(int64_t n, const Team& team) {
    if (state.is_fourier_unit()) return;
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      const int64_t pixels = count * job.W;
      const Map<const float> x = read_rows(job.x, n, job.C_in, row, count);
      state.conv1_norm.back(conv1_grad(n, row), conv1_read(n, row), pixels, rows, channels);
      grad_conv1.add(rows, channels, x.values, x.pixel, pixels, copies);
      const Map<float> grad_x = rows_to_write(job.grad_x, n, job.C_in, row);
      multiply_all(STORE, rows, channels, pixels, state.conv1, grad_x.values, grad_x.pixel);
      write_rows(job.grad_x, n, job.C_in, row, count, false);
    });
    team.wait();
  }

 private:
  OuterSum sum(bool needed, int64_t rows, int64_t columns, Arena& arena) const {
    return OuterSum(needed ? rows : 0, columns, arena);
  }

  template <typename Work>
  static void each_pair(const Team& team, int64_t H, Work work) {
    team.each((H + 1) / 2, [&](int64_t pair) { work(2 * pair, std::min<int64_t>(2, H - 2 * pair)); });
  }

  template <typename Work>
  static void each_group(const Team& team, const P& planes, Work work) {
    const int64_t groups = planes.groups();
    team.each(groups, [&](int64_t task) {
      const int64_t first = task * planes.Wf / groups;
      work(first, (task + 1) * planes.Wf / groups - first);
    });
  }

  bool is_direct(const Map<const float>& map) const { return !map.values || map.is_direct(job.W); }

  // Two rows of a map, from `row` on: its own, asked for in advance, since the processor does not foresee pixels that
  // lie so far apart, or a copy.
  Map<const float> read_rows(const Map<const float>& map, int64_t n, int64_t width, int64_t row, int64_t count) const {
    constexpr int64_t LINE = 64 / sizeof(float);
    if (!is_direct(map)) {
      gather_rows(map.of_image(n), width, row, row + count, job.W, copied);
      return channels_last(copied, job.W, width);
    }
    const Map<const float> at{map.at(n, row, 0), 0, 1, map.row, map.pixel};
    for (int64_t pixel = 0; pixel < count * job.W; ++pixel)
      for (int64_t c = 0; c < width; c += LINE) __builtin_prefetch(at.values + pixel * at.pixel + c, 0, 2);
    return at;
  }

  // Where rows of a map are written: in the map itself, or where `write_rows` copies them from.
  Map<float> rows_to_write(const Map<float>& map, int64_t n, int64_t width, int64_t row) const {
    if (!is_direct(map)) return channels_last(copied, job.W, width);
    return {map.at(n, row, 0), 0, 1, map.row, map.pixel};
  }

  void write_rows(const Map<float>& map, int64_t n, int64_t width, int64_t row, int64_t count, bool adds) const {
    if (is_direct(map)) return;
    const Map<float> image = map.of_image(n);
    scatter_rows(copied, width, row, row + count, job.W, adds ? image : Map<float>{}, false, image);
  }

  const float* conv1_read(int64_t n, int64_t row) const {
    return job.conv1.read + (n * state.pixels() + row * job.W) * channels;
  }
  float* conv1_grad(int64_t n, int64_t row) const {
    return job.conv1.grad + (n * state.pixels() + row * job.W) * channels;
  }

  void transform_rows(const P& planes, int64_t row, int64_t count, const Map<const float>& from) const {
    lines.rfft_rows(planes, row, from.values, count > 1 ? from.values + from.row : nullptr, from.pixel);
  }

  void invert_rows(const P& planes, int64_t row, const Map<float>& to) const {
    lines.irfft_rows(planes, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<LANES>(value, to.at(0, r, w) + channel, count);
    });
  }

  // The rows' spectra of h, and of its quadrants.
  void open_activated(int64_t n, const Maps& maps, const Team& team) {
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      if (state.is_fourier_unit())
        return transform_rows(maps.whole, row, count, read_rows(job.x, n, job.C_in, row, count));
      state.conv1_norm.activate(conv1_read(n, row), count * job.W, rows, channels);
      lines.rfft_rows(maps.whole, row, rows, count > 1 ? rows + job.W * channels : nullptr, channels);
    });
    if (state.has_lfu())
      each_pair(team, maps.quadrants.H,
                [&](int64_t row, int64_t count) { open_quadrants(n, maps.quadrants, row, count); });
    team.wait();
  }

  // Where a pixel of a quadrant lies; those of odd sides repeat the map's last row and column.
  int64_t quadrant_pixel(const P& planes, int64_t part, int64_t h, int64_t w) const {
    return std::min(part % 2 * planes.H + h, job.H - 1) * job.W + std::min(part / 2 * planes.W + w, job.W - 1);
  }

  void open_quadrants(int64_t n, const P& planes, int64_t row, int64_t count) {
    const int64_t cut = state.cut, row_width = 4 * cut;
    const float* read = conv1_read(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const float* from = read + quadrant_pixel(planes, part, row + r, w) * channels;
          float* to = rows + (r * planes.W + w) * row_width + part * cut;
          for (int64_t at = 0; at < cut; at += LANES) {
            const V value = state.conv1_norm.activated(load<LANES>(from + at, LANES), at);
            store<LANES>(value, to + at, cut - at);
          }
        }
    lines.rfft_rows(planes, row, rows, count > 1 ? rows + planes.W * row_width : nullptr, row_width);
  }

  void mix_columns(const P& planes, const Packed& weight, const TrainedLayer& layer, int64_t image,
                   Moments<LANES>& moments, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      open_columns(planes, first, number);
      float* mixed_rows = layer.read + image + first * planes.H * mixed;
      multiply_all(STORE, opened, planes.width, number * planes.H, weight, mixed_rows, mixed);
      if (layer.by_batch) moments.add(mixed_rows, number * planes.H);
    });
  }

  void open_columns(const P& planes, int64_t first, int64_t number) {
    for (int64_t k = 0; k < number; ++k)
      lines.template fft_column<false>(planes, planes.blocks, planes.at(first + k, 0), planes.width,
                                   opened + k * planes.H * planes.width, planes.width);
  }

  // The units' outputs: rows in the planes, and whole tiles.
  void close_spectra(int64_t n, const Maps& maps, const Team& team) {
    close_columns(maps.whole, state.fu_norm, job.fu.read + n * state.fu_image(), team);
    if (state.has_lfu()) {
      close_columns(maps.quadrants, state.lfu_norm, job.lfu.read + n * state.lfu_image(), team);
      team.wait();
      each_pair(team, maps.quadrants.H, [&](int64_t row, int64_t) {
        float* to = maps.tiles + row * maps.quadrants.W * channels;
        lines.irfft_rows(maps.quadrants, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
          store<LANES>(value, to + (r * maps.quadrants.W + w) * channels + channel, LANES);
        });
      });
    }
    team.wait();
  }

  void close_columns(const P& planes, const Norm<LANES>& norm, const float* read, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      norm.activate(read + first * planes.H * mixed, number * planes.H, closed, planes.width);
      for (int64_t k = 0; k < number; ++k)
        lines.template fft_column<true>(planes, state.whole.blocks, closed + k * planes.H * planes.width, planes.width,
                                    planes.at(first + k, 0), planes.width);
    });
  }

  // h + fu(h) + lfu(h) of some rows.
  void sum_parts(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& quadrants = maps.quadrants;
    const bool local = state.has_lfu();
    state.conv1_norm.activate(conv1_read(n, row), count * job.W, rows, channels);
    lines.irfft_rows(maps.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
      float* to = rows + (r * job.W + w) * channels + channel;
      if (local) {
        const int64_t h = (row + r) % quadrants.H, tile = w < quadrants.W ? w : w - quadrants.W;
        value += load<LANES>(maps.tiles + (h * quadrants.W + tile) * channels + channel, LANES);
      }
      store<LANES>(value + load<LANES>(to, LANES), to, LANES);
    });
  }

  // The rows' spectra of the sum of the four quadrants of a gradient.
  void open_tiles(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& planes = maps.quadrants;
    const float* grad = conv1_grad(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t at = 0; at < channels; at += LANES) {
          V sum{};
          for (int64_t h = row + r; h < job.H; h += planes.H)
            for (int64_t across = w; across < job.W; across += planes.W)
              sum += load<LANES>(grad + (h * job.W + across) * channels + at, LANES);
          store<LANES>(sum, rows + (r * planes.W + w) * channels + at, LANES);
        }
    P of_tiles = planes;
    of_tiles.C = job.C;
    of_tiles.blocks = state.whole.blocks;
    lines.rfft_rows(of_tiles, row, rows, count > 1 ? rows + planes.W * channels : nullptr, channels);
  }

  // The gradient of what a unit's norm gives: that of the inverse transform, which counts inner columns twice.
  void gate_columns(const P& planes, const Norm<LANES>& norm, const TrainedLayer& layer, int64_t image,
                    GradientSums& sums, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      const int64_t H = planes.H;
      for (int64_t column = first; column < first + number; ++column) {
        float* grad = layer.grad + image + column * H * mixed;
        lines.template fft_column<false>(planes, state.whole.blocks, planes.at(column, 0), planes.width, grad, mixed);
        const bool own = column == 0 || 2 * column == planes.W;
        norm.gate(grad, layer.read + image + column * H * mixed, H, own ? float(0.5) : float(1), sums);
      }
    });
  }

  // From the gradient of what a unit's norm gives to that of its rows' spectra. The planes hold the spectra.
  void mix_columns_back(const P& planes, const Packed& weight, const Norm<LANES>& norm,
                        const TrainedLayer& layer, int64_t image, OuterSum& grad_weight, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      const int64_t H = planes.H, start = image + first * H * mixed;
      open_columns(planes, first, number);
      norm.back(layer.grad + start, layer.read + start, number * H, closed, planes.width);
      grad_weight.add(closed, planes.width, opened, planes.width, number * H, copies);
      multiply_all(STORE, closed, planes.width, number * H, weight, opened, planes.width);
      for (int64_t k = 0; k < number; ++k) {
        const int64_t column = first + k;
        float* from = opened + k * H * planes.width;
        // The transform back counts inner columns twice, the gradient all of them once: the weight halves them.
        if (column == 0 || 2 * column == planes.W)
          for (int64_t at = 0; at < H * planes.width; at += LANES)
            store<LANES>(load<LANES>(from + at, LANES) * float(2), from + at, LANES);
        lines.template fft_column<true>(planes, planes.blocks, from, planes.width, planes.at(column, 0), planes.width);
      }
    });
  }

  void close_quadrants_back(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& planes = maps.quadrants;
    const int64_t cut = state.cut, row_width = 4 * cut;
    lines.irfft_rows(planes, planes.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t valid, V value) {
      store<LANES>(value, rows + (r * planes.W + w) * row_width + channel, valid);
    });
    float* grad = conv1_grad(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const float* from = rows + (r * planes.W + w) * row_width + part * cut;
          float* to = grad + quadrant_pixel(planes, part, row + r, w) * channels;
          for (int64_t at = 0; at < cut; at += LANES) {
            const int64_t left = cut - at;
            store<LANES>(load<LANES>(to + at, left) + load<LANES>(from + at, left), to + at, left);
          }
        }
  }

  const TrainingState<LANES>& state;
  const TrainingJob& job;
  const int64_t channels, mixed;
  const Lines<LANES> lines;
  float *const opened, *const closed, *const rows, *const copied;
};

}  // namespace
