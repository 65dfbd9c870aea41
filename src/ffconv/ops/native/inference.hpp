// A Spectral Transform in inference, image by image: what it computes of one image stays in the core's cache.
//
// Rows are transformed two at a time as they are made. A column is transformed for all channels, mixed and
// transformed back before the next one, so that neither spectrum is ever whole in memory. The last step
// transforms rows back, adds the parts, and mixes them into the result.

#pragma once

#include <cmath>

#include "planes.hpp"
#include "products.hpp"

namespace {

// A 1x1 convolution (columns, depth) and the batch norm after it, by its statistics.
template <typename T>
struct NormedLayer {
  const T *weight, *gamma, *beta, *mean, *var;
  T eps;

  T scale(int64_t column) const { return gamma[column] / std::sqrt(var[column] + eps); }
  T shift(int64_t column) const { return beta[column] - mean[column] * scale(column); }
};

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), as the caller fills it in; without first.weight
// y = fu(x), of as many channels.
template <typename T>
struct SpectralTransformJob {
  const T* x;
  T* y;
  Layout x_layout, y_layout;  // of maps whose rows follow each other: row = W * pixel
  int64_t N, H, W;
  int64_t C_in, C, C_out;     // channels of x, h and y
  int64_t add;                // to what y holds
  NormedLayer<T> first, unit, local;  // local.weight null: no Local Fourier Unit
  const T* last;
};

// What all threads share: the shapes, and the packed weights, whose order is that of the planes and which hold
// the norms' scales and those of the transforms.
template <typename T, int LANES>
struct Network {
  const SpectralTransformJob<T>& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const Planes<T, LANES> whole, quadrants;
  Packed<T> first, unit, local, last;

  Network(const SpectralTransformJob<T>& job, Pieces& pieces)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        first(packed(alone() ? 0 : job.C, job.C_in, pieces)),
        unit(packed(mixed_width(), 2 * LANES * whole.blocks, pieces)),
        local(packed(has_local() ? mixed_width() : 0, 2 * LANES * quadrants.blocks, pieces)),
        last(packed(alone() ? 0 : job.C_out, job.C, pieces)) {}

  bool alone() const { return !job.first.weight; }  // the Fourier Unit
  bool has_local() const { return job.local.weight; }
  int64_t mixed_width() const { return 2 * LANES * Planes<T, LANES>::of(job.C); }

  static Packed<T> packed(int64_t columns, int64_t depth, Pieces& pieces) {
    return Packed<T>(columns, depth, pieces.take<T>(Packed<T>::size(columns, depth)));
  }

  void pack(const Team& team) {
    const auto in_order = [](int64_t k) { return k; };
    team.each(first.panels(), [&](int64_t panel) {
      const auto normed = [&](int64_t c) {
        return PackedColumn<T>{job.first.weight + c * job.C_in, job.first.scale(c), job.first.shift(c)};
      };
      first.pack(panel, job.C_in, normed, in_order);
    });
    pack_unit(team, unit, job.unit, whole);
    pack_unit(team, local, job.local, quadrants);
    team.each(last.panels(), [&](int64_t panel) {
      last.pack(panel, job.C, [&](int64_t c) { return PackedColumn<T>{job.last + c * job.C, 1, 0}; }, in_order);
    });
    team.wait();
  }

  void pack_unit(const Team& team, Packed<T>& weight, const NormedLayer<T>& layer, const Planes<T, LANES>& planes) {
    // Both ways take 1 / sqrt(H W), and the rows' spectra are twice too large. ReLU keeps positive factors.
    const T back = T(1 / std::sqrt(double(planes.H) * planes.W)), there = back / 2;
    const auto column = [&](int64_t place) {
      const int64_t real = Planes<T, LANES>::real_at(place);
      if (real >= 2 * job.C) return PackedColumn<T>{};
      return PackedColumn<T>{layer.weight + real * 2 * planes.C, layer.scale(real) * there * back, layer.shift(real) * back};
    };
    team.each(weight.panels(),
              [&](int64_t panel) { weight.pack(panel, 2 * planes.C, column, Planes<T, LANES>::place_of); });
  }
};

// The maps and planes of one image. `tiles` is what the Local Fourier Unit adds, (h, w, C) of a quadrant.
template <typename T, int LANES>
struct Maps {
  T *h, *tiles;
  Planes<T, LANES> whole, quadrants;

  Maps(const Network<T, LANES>& network, Pieces& pieces) : whole(network.whole), quadrants(network.quadrants) {
    const int64_t C = network.job.C;
    const bool local = network.has_local();
    h = pieces.take<T>(network.alone() ? 0 : whole.H * whole.W * C);
    whole.values = pieces.take<T>(whole.size());
    quadrants.values = pieces.take<T>(local ? quadrants.size() : 0);
    tiles = pieces.take<T>(local ? quadrants.H * quadrants.W * C : 0);
  }
};

// What one thread does for images, by itself or with its team, in maps of its own or of the team.
template <typename T, int LANES>
class ImageTransform {
 public:
  using V = typename Vector<T, LANES>::type;

  ImageTransform(const Network<T, LANES>& network, Pieces& pieces)
      : network(network),
        job(network.job),
        lines(std::max(job.H, job.W), pieces),
        opened(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        mixed(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        sums(pieces.take<T>(2 * job.W * std::max(job.C, 4 * network.cut))) {}

  void run(int64_t n, const Maps<T, LANES>& maps, const Team& team) const {
    const bool local = network.has_local();
    const int64_t pairs = (job.H + 1) / 2, local_pairs = (maps.quadrants.H + 1) / 2;
    const int64_t group = maps.whole.group(), groups = (maps.whole.Wf + group - 1) / group;
    team.each(pairs, [&](int64_t pair) { enter(n, maps, 2 * pair); });
    team.wait();
    team.each(groups + (local ? local_pairs : 0), [&](int64_t task) {
      if (task < groups)
        mix(maps.whole, network.unit, task * group, group);
      else
        open_quadrants(maps, 2 * (task - groups));
    });
    team.wait();
    if (local) {
      const int64_t few = maps.quadrants.group();
      team.each((maps.quadrants.Wf + few - 1) / few,
                [&](int64_t task) { mix(maps.quadrants, network.local, task * few, few); });
      team.wait();
      team.each(local_pairs, [&](int64_t pair) { close_quadrants(maps, 2 * pair); });
      team.wait();
    }
    team.each(pairs, [&](int64_t pair) { leave(n, maps, 2 * pair); });
    team.wait();
  }

 private:
  // h, and the spectra of its rows.
  void enter(int64_t n, const Maps<T, LANES>& maps, int64_t row) const {
    const int64_t rows = std::min<int64_t>(2, job.H - row), W = job.W, C = job.C;
    const Layout& at = job.x_layout;
    const T* x = job.x + n * at.image + row * at.row;
    if (network.alone()) return lines.open_rows(maps.whole, row, x, rows > 1 ? x + at.row : nullptr, at.pixel);
    T* h = maps.h + row * W * C;
    multiply_all<Finish::SHIFT_RELU>(x, at.pixel, rows * W, network.first, h, C);
    lines.open_rows(maps.whole, row, h, rows > 1 ? h + W * C : nullptr, C);
  }

  // Quadrants of odd sides repeat the map's last row and column.
  void open_quadrants(const Maps<T, LANES>& maps, int64_t row) const {
    const Planes<T, LANES>& planes = maps.quadrants;
    const int64_t rows = std::min<int64_t>(2, planes.H - row), cut = network.cut, width = 4 * cut;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const int64_t h = std::min(part % 2 * planes.H + row + r, job.H - 1);
          const T* from = maps.h + (h * job.W + std::min(part / 2 * planes.W + w, job.W - 1)) * job.C;
          std::copy_n(from, cut, sums + (r * planes.W + w) * width + part * cut);
        }
    lines.open_rows(planes, row, sums, rows > 1 ? sums + planes.W * width : nullptr, width);
  }

  void mix(const Planes<T, LANES>& planes, const Packed<T>& weight, int64_t first, int64_t columns) const {
    const int64_t H = planes.H, width = planes.width, end = std::min(first + columns, planes.Wf);
    for (int64_t k = first; k < end; ++k)
      lines.template column<false>(planes, planes.blocks, planes.at(k, 0), width, opened + (k - first) * H * width,
                                   width);
    multiply_all<Finish::SHIFT_RELU>(opened, width, (end - first) * H, weight, mixed, width);
    for (int64_t k = first; k < end; ++k)
      lines.template column<true>(planes, network.whole.blocks, mixed + (k - first) * H * width, width,
                                  planes.at(k, 0), width);
  }

  void close_quadrants(const Maps<T, LANES>& maps, int64_t row) const {
    T* to = maps.tiles + row * maps.quadrants.W * job.C;
    lines.close_rows(maps.quadrants, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<T, LANES>(value, to + (r * maps.quadrants.W + w) * job.C + channel, count);
    });
  }

  // The sum of the parts, and its mixing.
  void leave(int64_t n, const Maps<T, LANES>& maps, int64_t row) const {
    const int64_t rows = std::min<int64_t>(2, job.H - row), W = job.W, C = job.C;
    const Planes<T, LANES>& quadrants = maps.quadrants;
    const bool local = network.has_local();
    const Layout& at = job.y_layout;
    T* y = job.y + n * at.image + row * at.row;
    if (network.alone())
      return lines.close_rows(maps.whole, C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
        store<T, LANES>(value, y + r * at.row + w * at.pixel + channel, count);
      });
    const T* h = maps.h + row * W * C;
    const T* tiles[] = {maps.tiles + row % quadrants.H * quadrants.W * C,
                        maps.tiles + (row + 1) % quadrants.H * quadrants.W * C};
    lines.close_rows(maps.whole, C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      const int64_t place = (r * W + w) * C + channel;
      value += load<T, LANES>(h + place, count);
      const int64_t tile = w < quadrants.W ? w : w - quadrants.W;
      if (local) value += load<T, LANES>(tiles[r] + tile * C + channel, count);
      store<T, LANES>(value, sums + place, count);
    });
    if (job.add)
      multiply_all<Finish::ADD>(sums, C, rows * W, network.last, y, at.pixel);
    else
      multiply_all<Finish::STORE>(sums, C, rows * W, network.last, y, at.pixel);
  }

  const Network<T, LANES>& network;
  const SpectralTransformJob<T>& job;
  const Lines<T, LANES> lines;
  T *const opened, *const mixed, *const sums;
};

template <typename T, int LANES>
void run_images(const SpectralTransformJob<T>& job) {
  static thread_local Scratch of_team, of_thread;
  Pieces counted{nullptr};
  Maps<T, LANES>(Network<T, LANES>(job, counted), counted);
  Pieces shared{of_team.of(counted.used)};
  Network<T, LANES> network(job, shared);
  const Maps<T, LANES> team_maps(network, shared);
#pragma omp parallel
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    network.pack(all);
    Pieces needed{nullptr};
    ImageTransform<T, LANES>(network, needed), Maps<T, LANES>(network, needed);
    Pieces own{of_thread.of(needed.used)};
    const ImageTransform<T, LANES> images(network, own);
    const Maps<T, LANES> maps(network, own);
    over_images(job.N, all, maps, team_maps,
                [&](int64_t n, const Maps<T, LANES>& of, const Team& team) { images.run(n, of, team); });
    of_thread.shrink();
  }
  of_team.shrink();
}

template <typename T, int LANES>
void run_spectral_transform(const SpectralTransformJob<T>& job) {
  job.C > LANES / 2 ? run_images<T, LANES>(job) : run_images<T, LANES / 2>(job);
}

}  // namespace
