// The phases of a Spectral Transform in training, for one image each.

#pragma once

#include "trained_network.hpp"

namespace {

// What one thread does for images; its sums and its gradients of weights.
template <typename T, int LANES>
class TrainedImages {
 public:
  using V = typename Vector<T, LANES>::type;
  using Maps = TrainedMaps<T, LANES>;
  using P = Planes<T, LANES>;

  Moments<T, LANES> first_moments, unit_moments, local_moments;
  GradientSums first_sums, unit_sums, local_sums;
  OuterCopies<T> copies;
  // Rows are the layer's channels out; spectral ones are in the order of the planes.
  OuterSum<T> grad_first, grad_unit, grad_local, grad_last;

  TrainedImages(const TrainedNetwork<T, LANES>& network, bool backward, Pieces& pieces)
      : first_moments(network.channels),
        unit_moments(network.mixed),
        local_moments(network.mixed),
        first_sums(network.channels),
        unit_sums(network.mixed),
        local_sums(network.mixed),
        copies(backward ? std::max(network.mixed, network.job.C_out) : 0, pieces),
        grad_first(sum(backward && !network.alone(), network.channels, network.job.C_in, pieces)),
        grad_unit(sum(backward, network.mixed, 2 * LANES * network.whole.blocks, pieces)),
        grad_local(sum(backward && network.has_local(), network.mixed, 2 * LANES * network.quadrants.blocks, pieces)),
        grad_last(sum(backward && !network.alone(), network.job.C_out, network.channels, pieces)),
        network(network),
        job(network.job),
        channels(network.channels),
        mixed(network.mixed),
        lines(std::max(job.H, job.W), pieces),
        opened(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        closed(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        rows(pieces.take<T>(2 * job.W * std::max(channels, LANES * network.quadrants.blocks))) {}

  // Forward, first phase: what bn1 reads.
  void enter(int64_t n, const Team& team) {
    if (network.alone()) return;
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      T* to = job.first.read + (n * network.pixels() + row * job.W) * channels;
      multiply_all(STORE, x_at(n, row), job.x_layout.pixel, count * job.W, network.first, to, channels);
      if (job.first.by_batch) first_moments.add(to, count * job.W, channels);
    });
    team.wait();
  }

  // Second phase: what the units' norms read.
  void mix(int64_t n, const Maps& maps, const Team& team) {
    open_activated(n, maps, team);
    mix_columns(maps.whole, network.unit, job.unit, n * network.unit_image(), unit_moments, team);
    if (network.has_local())
      mix_columns(maps.quadrants, network.local, job.local, n * network.local_image(), local_moments, team);
    team.wait();
  }

  // Third phase: the result.
  void leave(int64_t n, const Maps& maps, const Team& team) {
    close_spectra(n, maps, team);
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      T* y = y_at(n, row);
      if (network.alone()) return close_to(maps.whole, row, y, job.y_layout);
      sum_parts(n, maps, row, count);
      if (job.add)
        multiply_all(ADD, rows, channels, count * job.W, network.last, y, job.y_layout.pixel);
      else
        multiply_all(STORE, rows, channels, count * job.W, network.last, y, job.y_layout.pixel);
    });
    team.wait();
  }

  // Backward, first phase: the gradients of what the units' norms give, and of conv2's weight.
  void leave_back(int64_t n, const Maps& maps, const Team& team) {
    if (!network.alone()) close_spectra(n, maps, team);
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      if (network.alone()) return open_from(maps.whole, row, count, y_at(n, row), job.y_layout);
      const int64_t pixels = count * job.W;
      const T* y = y_at(n, row);
      T* grad = first_grad(n, row);
      prefetch(y, job.y_layout, job.C_out, count);
      sum_parts(n, maps, row, count);
      multiply_all(STORE, y, job.y_layout.pixel, pixels, network.last, grad, channels);
      grad_last.add(y, job.y_layout.pixel, rows, channels, pixels);
      lines.open_rows(maps.whole, row, grad, count > 1 ? grad + job.W * channels : nullptr, channels);
    });
    team.wait();
    gate_columns(maps.whole, network.unit_norm, job.unit, n * network.unit_image(), unit_sums, team);
    if (network.has_local()) {
      each_pair(team, maps.quadrants.H, [&](int64_t row, int64_t count) { open_tiles(n, maps, row, count); });
      team.wait();
      gate_columns(maps.quadrants, network.local_norm, job.local, n * network.local_image(), local_sums, team);
    }
    team.wait();
  }

  // Second phase: the gradients of what bn1 gives, and of the units' weights.
  void mix_back(int64_t n, const Maps& maps, const Team& team) {
    open_activated(n, maps, team);
    mix_columns_back(maps.whole, network.unit, network.unit_norm, job.unit, n * network.unit_image(), grad_unit, team);
    if (network.has_local()) {
      mix_columns_back(maps.quadrants, network.local, network.local_norm, job.local, n * network.local_image(),
                       grad_local, team);
      team.wait();
      // Quadrants of odd sides meet in the last row: one thread alone adds them.
      if (team.rank == 0)
        each_pair(Team{0, 1}, maps.quadrants.H,
                  [&](int64_t row, int64_t count) { close_quadrants_back(n, maps, row, count); });
    }
    team.wait();
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      const Layout at{0, job.W * job.C_in, job.C_in};
      if (network.alone()) return close_to(maps.whole, row, grad_x_at(n, row), at);
      T* grad = first_grad(n, row);
      const T* read = first_read(n, row);
      lines.close_rows(maps.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
        const int64_t at = (r * job.W + w) * channels + channel;
        store<T, LANES>(value + load<T, LANES>(grad + at, LANES), grad + at, LANES);
      });
      network.first_norm.gate(grad, read, count * job.W, T(1), first_sums);
    });
    team.wait();
  }

  // Third phase: the gradients of x and of conv1's weight.
  void enter_back(int64_t n, const Team& team) {
    if (network.alone()) return;
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      const int64_t pixels = count * job.W;
      prefetch(x_at(n, row), job.x_layout, job.C_in, count);
      network.first_norm.back(first_grad(n, row), first_read(n, row), pixels, rows, channels);
      grad_first.add(rows, channels, x_at(n, row), job.x_layout.pixel, pixels);
      multiply_all(STORE, rows, channels, pixels, network.first, grad_x_at(n, row), job.C_in);
    });
    team.wait();
  }

 private:
  OuterSum<T> sum(bool needed, int64_t rows, int64_t columns, Pieces& pieces) const {
    return OuterSum<T>(needed ? rows : 0, columns, copies, pieces);
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

  // Asks for rows of a map in advance: the processor does not foresee pixels that lie so far apart.
  void prefetch(const T* rows, const Layout& at, int64_t width, int64_t count) const {
    constexpr int64_t LINE = 64 / sizeof(T);
    for (int64_t pixel = 0; pixel < count * job.W; ++pixel)
      for (int64_t c = 0; c < width; c += LINE) __builtin_prefetch(rows + pixel * at.pixel + c, 0, 2);
  }

  const T* x_at(int64_t n, int64_t row) const { return job.x + n * job.x_layout.image + row * job.x_layout.row; }
  T* y_at(int64_t n, int64_t row) const { return job.y + n * job.y_layout.image + row * job.y_layout.row; }
  T* grad_x_at(int64_t n, int64_t row) const {
    return job.grad_x + (n * network.pixels() + row * job.W) * job.C_in;
  }
  const T* first_read(int64_t n, int64_t row) const {
    return job.first.read + (n * network.pixels() + row * job.W) * channels;
  }
  T* first_grad(int64_t n, int64_t row) const {
    return job.first.grad + (n * network.pixels() + row * job.W) * channels;
  }

  void open_from(const P& planes, int64_t row, int64_t count, const T* from, const Layout& at) const {
    prefetch(from, at, planes.C, count);
    lines.open_rows(planes, row, from, count > 1 ? from + at.row : nullptr, at.pixel);
  }

  void close_to(const P& planes, int64_t row, T* to, const Layout& at) const {
    lines.close_rows(planes, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<T, LANES>(value, to + r * at.row + w * at.pixel + channel, count);
    });
  }

  // The rows' spectra of h, and of its quadrants.
  void open_activated(int64_t n, const Maps& maps, const Team& team) {
    each_pair(team, job.H, [&](int64_t row, int64_t count) {
      if (network.alone()) return open_from(maps.whole, row, count, x_at(n, row), job.x_layout);
      network.first_norm.activate(first_read(n, row), count * job.W, rows, channels);
      lines.open_rows(maps.whole, row, rows, count > 1 ? rows + job.W * channels : nullptr, channels);
    });
    if (network.has_local())
      each_pair(team, maps.quadrants.H,
                [&](int64_t row, int64_t count) { open_quadrants(n, maps.quadrants, row, count); });
    team.wait();
  }

  // Where a pixel of a quadrant lies; those of odd sides repeat the map's last row and column.
  int64_t quadrant_pixel(const P& planes, int64_t part, int64_t h, int64_t w) const {
    return std::min(part % 2 * planes.H + h, job.H - 1) * job.W + std::min(part / 2 * planes.W + w, job.W - 1);
  }

  void open_quadrants(int64_t n, const P& planes, int64_t row, int64_t count) {
    const int64_t cut = network.cut, row_width = 4 * cut;
    const T* read = first_read(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const T* from = read + quadrant_pixel(planes, part, row + r, w) * channels;
          T* to = rows + (r * planes.W + w) * row_width + part * cut;
          for (int64_t at = 0; at < cut; at += LANES) {
            const V value = network.first_norm.activated(load<T, LANES>(from + at, LANES), at);
            store<T, LANES>(value, to + at, cut - at);
          }
        }
    lines.open_rows(planes, row, rows, count > 1 ? rows + planes.W * row_width : nullptr, row_width);
  }

  void mix_columns(const P& planes, const Packed<T>& weight, const TrainedLayer<T>& layer, int64_t image,
                   Moments<T, LANES>& moments, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      open_columns(planes, first, number);
      T* mixed_rows = layer.read + image + first * planes.H * mixed;
      multiply_all(STORE, opened, planes.width, number * planes.H, weight, mixed_rows, mixed);
      if (layer.by_batch) moments.add(mixed_rows, number * planes.H, mixed);
    });
  }

  void open_columns(const P& planes, int64_t first, int64_t number) {
    for (int64_t k = 0; k < number; ++k)
      lines.template column<false>(planes, planes.blocks, planes.at(first + k, 0), planes.width,
                                   opened + k * planes.H * planes.width, planes.width);
  }

  // The units' outputs: rows in the planes, and whole tiles.
  void close_spectra(int64_t n, const Maps& maps, const Team& team) {
    close_columns(maps.whole, network.unit_norm, job.unit.read + n * network.unit_image(), team);
    if (network.has_local()) {
      close_columns(maps.quadrants, network.local_norm, job.local.read + n * network.local_image(), team);
      team.wait();
      each_pair(team, maps.quadrants.H, [&](int64_t row, int64_t) {
        T* to = maps.tiles + row * maps.quadrants.W * channels;
        lines.close_rows(maps.quadrants, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
          store<T, LANES>(value, to + (r * maps.quadrants.W + w) * channels + channel, LANES);
        });
      });
    }
    team.wait();
  }

  void close_columns(const P& planes, const Norm<T, LANES>& norm, const T* read, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      norm.activate(read + first * planes.H * mixed, number * planes.H, closed, planes.width);
      for (int64_t k = 0; k < number; ++k)
        lines.template column<true>(planes, network.whole.blocks, closed + k * planes.H * planes.width, planes.width,
                                    planes.at(first + k, 0), planes.width);
    });
  }

  // h + fu(h) + lfu(h) of some rows.
  void sum_parts(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& quadrants = maps.quadrants;
    const bool local = network.has_local();
    network.first_norm.activate(first_read(n, row), count * job.W, rows, channels);
    lines.close_rows(maps.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t, V value) {
      T* to = rows + (r * job.W + w) * channels + channel;
      if (local) {
        const int64_t h = (row + r) % quadrants.H, tile = w < quadrants.W ? w : w - quadrants.W;
        value += load<T, LANES>(maps.tiles + (h * quadrants.W + tile) * channels + channel, LANES);
      }
      store<T, LANES>(value + load<T, LANES>(to, LANES), to, LANES);
    });
  }

  // The rows' spectra of the sum of the four quadrants of a gradient.
  void open_tiles(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& planes = maps.quadrants;
    const T* grad = first_grad(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t at = 0; at < channels; at += LANES) {
          V sum{};
          for (int64_t h = row + r; h < job.H; h += planes.H)
            for (int64_t across = w; across < job.W; across += planes.W)
              sum += load<T, LANES>(grad + (h * job.W + across) * channels + at, LANES);
          store<T, LANES>(sum, rows + (r * planes.W + w) * channels + at, LANES);
        }
    P of_tiles = planes;
    of_tiles.C = job.C;
    of_tiles.blocks = network.whole.blocks;
    lines.open_rows(of_tiles, row, rows, count > 1 ? rows + planes.W * channels : nullptr, channels);
  }

  // The gradient of what a unit's norm gives: that of the inverse transform, which counts inner columns twice.
  void gate_columns(const P& planes, const Norm<T, LANES>& norm, const TrainedLayer<T>& layer, int64_t image,
                    GradientSums& sums, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      const int64_t H = planes.H;
      for (int64_t column = first; column < first + number; ++column) {
        T* grad = layer.grad + image + column * H * mixed;
        lines.template column<false>(planes, network.whole.blocks, planes.at(column, 0), planes.width, grad, mixed);
        const bool own = column == 0 || 2 * column == planes.W;
        norm.gate(grad, layer.read + image + column * H * mixed, H, own ? T(0.5) : T(1), sums);
      }
    });
  }

  // From the gradient of what a unit's norm gives to that of its rows' spectra. The planes hold the spectra.
  void mix_columns_back(const P& planes, const Packed<T>& weight, const Norm<T, LANES>& norm,
                        const TrainedLayer<T>& layer, int64_t image, OuterSum<T>& grad_weight, const Team& team) {
    each_group(team, planes, [&](int64_t first, int64_t number) {
      const int64_t H = planes.H, start = image + first * H * mixed;
      open_columns(planes, first, number);
      norm.back(layer.grad + start, layer.read + start, number * H, closed, planes.width);
      grad_weight.add(closed, planes.width, opened, planes.width, number * H);
      multiply_all(STORE, closed, planes.width, number * H, weight, opened, planes.width);
      for (int64_t k = 0; k < number; ++k) {
        const int64_t column = first + k;
        T* from = opened + k * H * planes.width;
        // The transform back counts inner columns twice, the gradient all of them once: the weight halves them.
        if (column == 0 || 2 * column == planes.W)
          for (int64_t at = 0; at < H * planes.width; at += LANES)
            store<T, LANES>(load<T, LANES>(from + at, LANES) * T(2), from + at, LANES);
        lines.template column<true>(planes, planes.blocks, from, planes.width, planes.at(column, 0), planes.width);
      }
    });
  }

  void close_quadrants_back(int64_t n, const Maps& maps, int64_t row, int64_t count) {
    const P& planes = maps.quadrants;
    const int64_t cut = network.cut, row_width = 4 * cut;
    lines.close_rows(planes, planes.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t valid, V value) {
      store<T, LANES>(value, rows + (r * planes.W + w) * row_width + channel, valid);
    });
    T* grad = first_grad(n, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const T* from = rows + (r * planes.W + w) * row_width + part * cut;
          T* to = grad + quadrant_pixel(planes, part, row + r, w) * channels;
          for (int64_t at = 0; at < cut; at += LANES) {
            const int64_t left = cut - at;
            store<T, LANES>(load<T, LANES>(to + at, left) + load<T, LANES>(from + at, left), to + at, left);
          }
        }
  }

  const TrainedNetwork<T, LANES>& network;
  const TrainingJob<T>& job;
  const int64_t channels, mixed;
  const Lines<T, LANES> lines;
  T *const opened, *const closed, *const rows;
};

}  // namespace
